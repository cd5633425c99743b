import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.pairs.collate import Batch
from ctscribe.learn.pairs.dataset import PairDataset, Visual
from ctscribe.learn.train.validation import Validation, validate, validation_pairs


class MeanOfFeatures(nn.Module):
    """Scores a study by the features it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, batch: Batch) -> AnswerLosses:
        assert not self.training
        assert not torch.is_grad_enabled()
        num_rows = len(batch["input_ids"])
        self.batches.append(num_rows)
        means = batch["visual_tokens"].reshape(num_rows, -1).mean(1)
        return AnswerLosses(values=means, rows=torch.arange(num_rows), num_rows=num_rows)


def test_each_scan_once_beside_another_patient(prepared: Prepared) -> None:
    studies = prepared.studies
    again = studies[0].model_copy(update={"volume_name": "train_0_a_2.nii.gz"})
    rows = validation_pairs([again, *studies])
    assert rows == validation_pairs([*studies[::-1], again])
    assert len(rows) == 2 * len(studies)
    assert "train_0_a_2.nii.gz" not in {row.study for row in rows}
    for own, other in zip(rows[::2], rows[1::2], strict=True):
        assert own.study == own.volume == other.study
        assert other.volume not in (None, own.study)


def test_one_patient_is_not_enough(prepared: Prepared) -> None:
    with pytest.raises(CtscribeError, match=r"two patients or more, but it has 1"):
        validation_pairs(prepared.studies[:1])
    assert len(validation_pairs(prepared.studies[:2])) == 4  # two patients stand in for each other


def test_shares_of_any_number_of_processes_add_up(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> None:
    studies = prepared.studies
    number = {study.volume_name: float(n) for n, study in enumerate(studies)}

    def visual(study: StudyRow, noise_seed: int | None) -> Visual:
        value = number[study.volume_name]
        return Visual((2, 2, 2), (0.0, 1.0), visual_tokens=torch.full((2, 3), value))

    rows = validation_pairs(studies)
    pairs = PairDataset(prepared.by_name, rows, tokenizer, visual, 4096)
    others = [number[row.volume or ""] for row in rows[1::2]]
    for num_processes in (1, 3):
        shares: list[torch.Tensor] = []
        forward_passes = []

        def collect(sums: torch.Tensor, shares: list[torch.Tensor] = shares) -> torch.Tensor:
            shares.append(sums)
            return sums

        for process in range(num_processes):
            scorer = MeanOfFeatures()
            validate(
                scorer,
                pairs,
                pad_id=0,
                batch_size=5,
                process=process,
                num_processes=num_processes,
                add_up=collect,
            )
            assert max(scorer.batches) <= 5
            assert scorer.training
            forward_passes.append(scorer.batches)
        assert all(passes == forward_passes[0] for passes in forward_passes)
        own, other = (torch.stack(shares).sum(0) / len(studies)).tolist()
        assert own == pytest.approx(sum(range(16)) / 16)
        assert other == pytest.approx(sum(others) / 16)


def test_gap_is_what_a_wrong_scan_costs() -> None:
    assert Validation(own_ce=0.5, other_ce=2.0).gap == 1.5
