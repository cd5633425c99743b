"""What a written report earns, and how much better than its group that is.

A report earns the agreement of the findings that it states with those of its own patient, less
its agreement with another patient's: what can be had by reciting earns nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ctscribe.base.recipe import ReinforceConfig
from ctscribe.base.rows import StudyRow
from ctscribe.base.types import Labels
from ctscribe.learn.pairs.build import patient_numbers
from ctscribe.learn.pairs.heter import draw_partners
from ctscribe.text.labeler import known_labels, label_report
from ctscribe.text.sections import split_report

_SMALL = 1e-6
"""Spreads of rewards below it are rounding: their group teaches nothing."""


@final
@dataclass(frozen=True)
class Earned:
    """What one report earned."""

    reward: float
    own_f1: float
    """Agreement with the findings of its own patient, 0 to 1."""
    other_f1: float
    """Agreement with those of another patient, 0 to 1."""


def judge(
    text: str, *, finished: bool, own: Labels, other: Labels, config: ReinforceConfig
) -> Earned:
    """Reads the findings that an answer states and compares them with both patients'."""
    stated = stated_labels(text)
    own_f1, other_f1 = set_f1(stated, own), set_f1(stated, other)
    penalty = 0.0 if finished else config.unfinished_penalty
    return Earned(own_f1 - config.other_weight * other_f1 - penalty, own_f1, other_f1)


def stated_labels(text: str) -> Labels:
    """The findings that an answer states, read as evaluation reads them: without its headings."""
    return label_report("\n".join(split_report(text)))


def set_f1(stated: Labels, true: Labels) -> float:
    """2·|both| / (|stated| + |true|); 1 for two empty sets: no finding is a right answer too.

    So on a scan without findings a report earns 1 or 0, and on any other one that states nothing
    earns 0.
    """
    size = sum(stated) + sum(true)
    return 2 * sum(a and b for a, b in zip(stated, true, strict=True)) / size if size else 1.0


def draw_others(studies: Sequence[StudyRow], seed: int) -> list[Labels]:
    """For each study the labels of another patient, drawn uniformly among those that differ.

    Raises:
        CtscribeError: ``E_NO_NEGATIVE`` when no other patient's labels differ from a study's.
    """
    labels = [known_labels(study) for study in studies]
    table = np.array(labels, np.uint8)
    partners = draw_partners(table, patient_numbers(studies), min_distance=1, seed=seed)
    return [labels[number] for number in partners.index]


def advantages(rewards: Float[Tensor, "scans samples"]) -> Float[Tensor, "scans samples"]:
    """How many standard deviations above the mean of its scan's reports each reward lies.

    0 where all reports of a scan earn the same. Source: Shao et al., arXiv:2402.03300, section
    4.1.2, Â = (r − mean(r)) / std(r).
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, correction=0, keepdim=True)
    return (centred / spread.clamp(min=_SMALL)).where(spread > _SMALL, 0.0)
