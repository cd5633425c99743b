"""Validation: cross entropy of reports given their own scan, and given another patient's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.learn.pairs.build import patient_numbers
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import PairDataset
from ctscribe.learn.pairs.heter import draw_strangers


@final
@dataclass(frozen=True)
class Validation:
    """Means over scans, nats per answer token."""

    own_ce: float
    """Given the scan itself; the best checkpoint has the lowest."""
    other_ce: float
    """Given another patient's scan."""

    @property
    def gap(self) -> float:
        """``other_ce − own_ce``: 0 for a model that does not look at the scan."""
        return self.other_ce - self.own_ce


def validation_pairs(studies: Sequence[StudyRow]) -> list[PairRow]:
    """A positive and a negative row per scan: its first volume, and another patient's.

    The other patients are drawn with a fixed seed, so they are the same in every run.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients to validate on.
    """
    firsts: dict[str, StudyRow] = {}
    for study in sorted(studies, key=lambda study: study.volume_name):
        firsts.setdefault(study.scan_id, study)
    scans = list(firsts.values())
    num_patients = len({scan.patient_id for scan in scans})
    if num_patients < 2:
        raise CtscribeError(
            "E_EMPTY_SPLIT", f"validation needs two patients or more, but it has {num_patients}"
        )
    rows = []
    for scan, other in zip(scans, draw_strangers(patient_numbers(scans), seed=0), strict=True):
        name, shown = scan.volume_name, scans[other].volume_name
        rows.append(PairRow(study=name, role="positive", volume=name))
        rows.append(PairRow(study=name, role="negative", volume=shown))
    return rows


@torch.no_grad()
def validate(
    scorer: nn.Module,
    pairs: PairDataset,
    *,
    pad_id: int,
    batch_size: int,
    process: int,
    num_processes: int,
    add_up: Callable[[Tensor], Tensor],
) -> Validation:
    """Mean losses of the pairs of `validation_pairs`; each process computes its share.

    ``scorer`` returns `AnswerLosses`, as `ReportScorer` does. ``add_up`` sums a tensor over the
    processes.
    """
    scorer.eval()
    device = next(scorer.parameters()).device
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # with sharded weights a forward pass is collective, so all processes need the same number of
    # them; one that has run out of pairs repeats the first ones, which are not counted
    mine = range(process, num_processes * -(-len(pairs) // num_processes), num_processes)
    for at in range(0, len(mine), batch_size):
        numbers = mine[at : at + batch_size]
        batch = collate_pairs([pairs[number % len(pairs)] for number in numbers], pad_id)
        counted = torch.tensor([number < len(pairs) for number in numbers], device=device)
        branches = (batch["positive"], batch["negative"])
        sums += torch.stack(
            [scorer(branch).per_sample()[counted].double().sum() for branch in branches if branch]
        )
    scorer.train()
    own_ce, other_ce = (add_up(sums) / len(pairs)).tolist()
    return Validation(own_ce, other_ce)
