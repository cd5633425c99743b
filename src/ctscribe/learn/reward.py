"""The reward of a sampled report, and its advantage within its group.

The reward is the F1 of the stated findings against the patient's own labels, minus a share of their
F1 against another patient's. So a report that would fit any patient gains nothing.
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
"""A standard deviation of rewards below this is rounding error; the advantages are then 0."""


@final
@dataclass(frozen=True)
class Reward:
    """The reward of one report."""

    reward: float
    own_f1: float
    """Against the labels of its own patient, 0 to 1."""
    other_f1: float
    """Against those of another patient, 0 to 1."""


def reward_of(
    text: str, *, finished: bool, own: Labels, other: Labels, config: ReinforceConfig
) -> Reward:
    """The reward of an answer; an unfinished one is penalised."""
    stated = stated_labels(text)
    own_f1, other_f1 = set_f1(stated, own), set_f1(stated, other)
    penalty = 0.0 if finished else config.unfinished_penalty
    return Reward(own_f1 - config.other_weight * other_f1 - penalty, own_f1, other_f1)


def stated_labels(text: str) -> Labels:
    """The findings that an answer states, read by the rule labeler as in evaluation."""
    return label_report("\n".join(split_report(text)))


def set_f1(stated: Labels, true: Labels) -> float:
    """F1 of two sets of findings: 2·|both| / (|stated| + |true|), and 1 where both are empty."""
    size = sum(stated) + sum(true)
    return 2 * sum(a and b for a, b in zip(stated, true, strict=True)) / size if size else 1.0


def draw_others(studies: Sequence[StudyRow], seed: int) -> list[Labels]:
    """For each study the labels of another patient, drawn uniformly from those that differ.

    Raises:
        CtscribeError: ``E_NO_NEGATIVE`` when no other patient's labels differ from a study's.
    """
    labels = [known_labels(study) for study in studies]
    table = np.array(labels, np.uint8)
    partners = draw_partners(table, patient_numbers(studies), min_distance=1, seed=seed)
    return [labels[number] for number in partners.index]


def advantages(rewards: Float[Tensor, "scans samples"]) -> Float[Tensor, "scans samples"]:
    """Each reward, standardised over the reports of its scan; 0 where these are all equal.

    Source: Shao et al., arXiv:2402.03300, section
    4.1.2, Â = (r − mean(r)) / std(r).
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, correction=0, keepdim=True)
    return (centred / spread.clamp(min=_SMALL)).where(spread > _SMALL, 0.0)
