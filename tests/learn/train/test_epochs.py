"""The order of the pairs, hard pairs drawn anew for an epoch, and the updates of an epoch."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import GapRow, PairRow, StudyRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.dataset import PairDataset, Visual
from ctscribe.learn.train.arguments import checkpoint_steps, count_updates
from ctscribe.learn.train.epochs import EpochsInOrder, HardPairs


def order(length: int, epochs: int, seed: int) -> list[int]:
    items = EpochsInOrder(range(length), epochs, seed)
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


@pytest.mark.parametrize("length", [20, 21])
def test_couples_meet_in_a_micro_batch_in_every_epoch(length: int) -> None:
    """Whatever process takes it: batches are cut from one order, each of an even size."""
    couples = [(0, 7), (3, 19), (5, 6), (8, 2)]
    items = EpochsInOrder(range(length), 4, 1, couples=couples)
    seen = [items[number] for number in range(len(items))]
    epochs = [seen[start : start + length] for start in range(0, len(seen), length)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    twos = [{*seen[start : start + 2]} for start in range(0, len(seen), 2)]
    assert all(twos.count({*couple}) == 4 for couple in couples)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    where = [epoch.index(0) for epoch in epochs]
    assert len({*where}) > 2  # couples and those who are in none are mixed


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


@pytest.fixture
def dataset(
    prepared: Prepared, pairs_of: dict[str, Path], tokenizer: PreTrainedTokenizerBase
) -> PairDataset:
    rows = read_rows(pairs_of["hard"], PairRow)

    def visual(study: StudyRow, noise_seed: int | None) -> Visual:
        return Visual((2, 2, 2), (0.0, 1.0), visual_tokens=torch.zeros(2, 3))

    return PairDataset(prepared.by_name, rows, tokenizer, visual, 4096)


def hard(dataset: PairDataset, folder: Path, step: int = 0) -> HardPairs:
    return HardPairs(dataset, 7, 5, folder, step)


def told(dataset: PairDataset, gap: float) -> list[GapRow]:
    """A gap for every pair; one alternative of each study is told apart far better."""
    rows = [row for row in dataset.rows() if row.role == "negative"]
    return [GapRow(study=r.study, volume=str(r.volume), gap=gap + k) for k, r in enumerate(rows)]


def negatives(dataset: PairDataset) -> list[tuple[str, str | None]]:
    return [(row.study, row.volume) for row in dataset.rows() if row.role == "negative"]


def test_the_first_epoch_is_as_built_and_the_next_is_drawn_anew(
    dataset: PairDataset, tmp_path: Path
) -> None:
    tested = hard(dataset, tmp_path)
    assert tested.epoch(0) is dataset
    tested.learn(told(dataset, 1.0))
    second = tested.epoch(1)
    assert len(second) == len(dataset)
    assert negatives(second) != negatives(dataset)
    allowed = {row.study: row.alternatives for row in dataset.rows() if row.alternatives}
    assert all(volume in allowed[study] for study, volume in negatives(second))


def test_gaps_of_updates_still_at_work_do_not_count(dataset: PairDataset, tmp_path: Path) -> None:
    """12 pairs in updates of 5: when the 13th is fetched the third update may be at work."""
    gaps = told(dataset, 1.0)
    early, late = hard(dataset, tmp_path), hard(dataset, tmp_path)
    early.learn(gaps[:5])
    late.learn(gaps)
    assert negatives(early.epoch(1)) == negatives(late.epoch(1))
    none = hard(dataset, tmp_path)
    assert negatives(none.epoch(1)) != negatives(late.epoch(1))


def test_a_continued_run_draws_the_same_and_forgets_what_came_after(
    dataset: PairDataset, tmp_path: Path
) -> None:
    whole = hard(dataset, tmp_path)
    whole.learn(told(dataset, 1.0))
    whole.learn(told(dataset, 2.0)[:3])
    whole.save()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["epoch-1.jsonl", "epoch-2.jsonl"]
    continued = hard(dataset, tmp_path, step=3)
    continued.learn(told(dataset, 9.0)[3:])
    whole.learn(told(dataset, 9.0)[3:])
    assert negatives(continued.epoch(1)) == negatives(whole.epoch(1))
    assert negatives(continued.epoch(2)) == negatives(whole.epoch(2))
    assert negatives(hard(dataset, tmp_path, step=1).epoch(1)) == negatives(whole.epoch(1))


def test_the_order_asks_for_each_epochs_own_items() -> None:
    items = EpochsInOrder(range(5), 2, 0, lambda epoch: range(100 * epoch, 100 * epoch + 5))
    seen = [items[number] for number in range(10)]
    assert sorted(seen[:5]) == [0, 1, 2, 3, 4]
    assert sorted(seen[5:]) == [100, 101, 102, 103, 104]
