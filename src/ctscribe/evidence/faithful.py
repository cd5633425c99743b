"""Whether evidence can be believed: compared with where a phantom's lesions truly are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.evidence.explain import (
    Box,
    attention_of,
    box_of,
    drops_of,
    leave_one_out,
    see,
)
from ctscribe.evidence.leave_out import Kept, Shown, log_probs
from ctscribe.evidence.sentences import ReadReport
from ctscribe.model.slice_attention import Seen
from ctscribe.model.targets import cell_targets
from ctscribe.slices.boxes import FrameBoxes

METHODS = ("attention", "leave_one_out", "random")
"""Ways to rank slice pairs: by the finding queries, by exact removal, without a look."""


@final
@dataclass(frozen=True)
class Truth:
    """A phantom's lesions in the frames that are shown."""

    boxes: FrameBoxes
    findings: tuple[int, ...]
    """Index into `FINDINGS` of each box."""
    slice_indices: tuple[int, ...]
    frame_size_px: tuple[int, int]

    def pairs_with(self, finding: int) -> Bool[np.ndarray, "pairs"]:
        """Slice pairs that show a lesion of this finding."""
        targets = cell_targets(self.boxes, self.findings, self.slice_indices, self.frame_size_px)
        shown = targets[..., finding].reshape(len(self.slice_indices) // 2, -1)
        return np.asarray(shown.max(1) > 0)

    def boxes_in(self, finding: int, pair: int) -> list[Box]:
        """This finding's boxes in a slice pair, in pixels, cut to the frame."""
        height, width = self.frame_size_px
        depths = self.slice_indices[2 * pair : 2 * pair + 2]
        found = []
        for box, named in zip(self.boxes, self.findings, strict=True):
            if named == finding and any(box[2, 0] - 0.5 <= z <= box[2, 1] + 0.5 for z in depths):
                low = np.floor(box[:2, 0] + 0.5).clip(0)
                high = np.floor(box[:2, 1] + 1.5).clip(max=(width, height))
                if (low < high).all():
                    found.append((int(low[0]), int(low[1]), int(high[0]), int(high[1])))
        return found


@final
@dataclass(frozen=True)
class Checked:
    """One true sentence: where each method's ranking meets the truth."""

    finding: int
    num_pairs: int
    num_true: int
    """Slice pairs that show the finding."""
    rank: Mapping[str, int]
    """Place of the first true pair in each ranking, from 1."""
    overlap: Mapping[str, float]
    """Intersection over union of the box in the best-ranked true pair with the nearest lesion's."""
    deletion: Mapping[str, tuple[float, ...]]
    """Log-probability with the k first pairs of the ranking away, k = 0 … all."""
    insertion: Mapping[str, tuple[float, ...]]
    """Log-probability with only the k first there."""


def check(
    qwen: Qwen2_5_VLForConditionalGeneration,
    report: ReadReport,
    shown: Shown,
    truth: Truth,
    seed: int,
) -> list[Checked]:
    """Checks every sentence that states one finding which is there and shown.

    Args:
        qwen: The model.
        report: What it wrote.
        shown: The same report behind its volume.
        truth: Where the volume's lesions are.
        seed: Of random rankings and boxes.
    """
    draw = np.random.default_rng(seed)
    chosen = [
        (number, sentence.present[0])
        for number, sentence in enumerate(report.sentences)
        if len(sentence.present) == 1 and truth.pairs_with(sentence.present[0]).any()
    ]
    seen = see(qwen, shown)
    rankings = _rankings(qwen, report, shown, seen, [number for number, _ in chosen], draw)
    scores = _scores(qwen, shown, rankings)
    checked: list[Checked] = []
    for number, finding in chosen:
        true, ranking = truth.pairs_with(finding), rankings[number]
        order = ranking.get("attention", ranking["leave_one_out"])
        best = order[_first_true(order, true) - 1]
        boxed = box_of(report.sentences[number], seen, best), truth.boxes_in(finding, best)
        members = report.tokens[number].float()
        deletion, insertion = (
            {
                name: tuple(float(scores[kept][:-1] @ members) for kept in _steps(order, inserting))
                for name, order in ranking.items()
            }
            for inserting in (False, True)
        )
        checked.append(
            Checked(
                *(finding, shown.num_pairs, int(true.sum())),
                {name: _first_true(order, true) for name, order in ranking.items()},
                _overlaps(*boxed, truth, draw),
                deletion,
                insertion,
            )
        )
    return checked


def _rankings(
    qwen: Qwen2_5_VLForConditionalGeneration,
    report: ReadReport,
    shown: Shown,
    seen: Seen | None,
    chosen: Sequence[int],
    draw: np.random.Generator,
) -> dict[int, dict[str, list[int]]]:
    """Each method's order of the slice pairs, by number of the sentence."""
    _, drops = drops_of(log_probs(qwen, shown, leave_one_out(shown.num_pairs)), report)
    rankings: dict[int, dict[str, list[int]]] = {}
    for number in chosen:
        rankings[number] = {
            "leave_one_out": _order(drops[number]),
            "random": draw.permutation(shown.num_pairs).tolist(),
        }
        attention = attention_of(report.sentences[number], seen)
        if attention is not None:
            rankings[number]["attention"] = _order(attention)
    return rankings


def hit_by_chance(num_pairs: int, num_true: int, k: int) -> float:
    """Probability that k slice pairs drawn without a look include a true one."""
    return 1 - comb(num_pairs - num_true, k) / comb(num_pairs, k)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    return shared / (_area(first) + _area(second) - shared)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlaps(
    box: Box | None, lesions: Sequence[Box], truth: Truth, draw: np.random.Generator
) -> dict[str, float]:
    """Of the box, and of one of its size put anywhere in the frame."""
    if box is None or not lesions:
        return {}
    height, width = truth.frame_size_px
    left = int(draw.integers(width - (box[2] - box[0]) + 1))
    top = int(draw.integers(height - (box[3] - box[1]) + 1))
    moved = (left, top, left + box[2] - box[0], top + box[3] - box[1])
    return {
        "attention": max(overlap(box, lesion) for lesion in lesions),
        "random": max(overlap(moved, lesion) for lesion in lesions),
    }


def _first_true(order: Sequence[int], true: Bool[np.ndarray, "pairs"]) -> int:
    return 1 + next(place for place, pair in enumerate(order) if true[pair])


def _order(values: Float[Tensor, "pairs"]) -> list[int]:
    order: list[int] = values.argsort(descending=True).tolist()
    return order


def _steps(order: Sequence[int], insertion: bool) -> list[Kept]:
    ends = range(len(order) + 1)
    return [frozenset(order[:k] if insertion else order[k:]) for k in ends]


def _scores(
    qwen: Qwen2_5_VLForConditionalGeneration,
    shown: Shown,
    rankings: Mapping[int, Mapping[str, Sequence[int]]],
) -> dict[Kept, Float[Tensor, "answer_tokens"]]:
    """Log-probabilities for every set of pairs that some curve passes through, each once."""
    needed = sorted(
        {
            kept
            for ranking in rankings.values()
            for order in ranking.values()
            for insertion in (True, False)
            for kept in _steps(order, insertion)
        },
        key=sorted,
    )
    return dict(zip(needed, log_probs(qwen, shown, needed), strict=True)) if needed else {}
