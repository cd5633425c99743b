from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.rows import GapRow, PairRow, StudyRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.dataset import PairDataset, Visual
from ctscribe.learn.train.epochs import EpochsInOrder, HardPairs


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
