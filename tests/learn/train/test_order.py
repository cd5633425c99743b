import pytest
from transformers import TrainingArguments

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.train.arguments import checkpoint_steps, count_updates
from ctscribe.learn.train.epochs import EpochsInOrder


class Numbers:
    """Stands for a data set; an item is its own number."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> int:
        return number


def order(length: int, epochs: int, seed: int) -> list[int]:
    items = EpochsInOrder(Numbers(length), epochs, seed)
    return [items[number] for number in range(len(items))]


def test_every_epoch_has_every_pair_once_in_an_order_of_its_own() -> None:
    seen = order(50, 3, 0)
    epochs = [seen[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_is_fixed_by_the_seed_alone() -> None:
    assert order(50, 2, 7) == order(50, 2, 7) == order(50, 3, 7)[:100]
    assert order(50, 2, 7) != order(50, 2, 8)
    assert order(5, 2, 0) == [2, 4, 3, 0, 1, 1, 4, 3, 0, 2]


@pytest.mark.parametrize(
    ("steps", "checkpoints", "due"),
    [(100, 4, {25, 50, 75, 100}), (7, 2, {4, 7}), (3, 5, {1, 2, 3}), (1, 10, {1})],
)
def test_checkpoints_are_even_and_end_with_the_last_update(
    steps: int, checkpoints: int, due: set[int]
) -> None:
    assert checkpoint_steps(steps, checkpoints) == due


@pytest.mark.parametrize(
    ("items", "per_device", "accumulation", "updates"),
    [(24, 1, 4, 6), (24, 1, 5, 5), (25, 4, 1, 6), (7, 4, 8, 1)],
)
def test_updates_are_counted_as_the_trainer_counts(
    tmp_path_factory: pytest.TempPathFactory,
    items: int,
    per_device: int,
    accumulation: int,
    updates: int,
) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path_factory.mktemp("run")),
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to=[],
    )
    assert count_updates(items, arguments) == updates
    with pytest.raises(CtscribeError, match=f"takes {per_device} pairs"):
        count_updates(per_device - 1, arguments)
