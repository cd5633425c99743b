"""What 18 labels cannot say of a report: wrong sides and sizes, and findings outside them.

In: written reports and their references as text. Out: counts per finding.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from ctscribe.text.findings import FINDINGS
from ctscribe.text.other_findings import OTHER_FINDINGS, find_other_findings
from ctscribe.text.sizes import Extent, same_size, stated_extents


@final
@dataclass(frozen=True)
class Placed:
    """A finding that a report and its reference both state, with where and how large."""

    finding: str
    stated: Extent
    true: Extent

    @property
    def wrong_side(self) -> bool | None:
        """Whether they name different sides; None unless both name one."""
        if not self.stated.sides or not self.true.sides:
            return None
        return self.stated.sides != self.true.sides

    @property
    def wrong_size(self) -> bool | None:
        """Whether their sizes differ by more than is tolerated; None unless both give one."""
        stated, true = self.stated.size_mm, self.true.size_mm
        if stated is None or true is None:
            return None
        return not same_size(stated, true)


def placed_findings(*, prediction: str, reference: str) -> Iterator[Placed]:
    """The findings that both texts state, in the order of `FINDINGS`."""
    stated, true = stated_extents(prediction), stated_extents(reference)
    for finding in FINDINGS:
        if finding in stated and finding in true:
            yield Placed(finding, stated[finding], true[finding])


def count_wrong_places(
    *, predictions: Sequence[str], references: Sequence[str]
) -> list[dict[str, int]]:
    """Per finding of `FINDINGS`: of how many scans side and size can be compared and are wrong.

    Returns:
        ``sides_compared``, ``wrong_side``, ``sizes_compared``, ``wrong_size``.
    """
    counts = Counter[tuple[str, str]]()
    for prediction, reference in zip(predictions, references, strict=True):
        for each in placed_findings(prediction=prediction, reference=reference):
            for kind, wrong in (("side", each.wrong_side), ("size", each.wrong_size)):
                counts[each.finding, f"{kind}s_compared"] += wrong is not None
                counts[each.finding, f"wrong_{kind}"] += wrong is True
    kinds = ("sides_compared", "wrong_side", "sizes_compared", "wrong_size")
    return [{kind: counts[finding, kind] for kind in kinds} for finding in FINDINGS]


def count_other_findings(
    *, predictions: Sequence[str], references: Sequence[str]
) -> list[dict[str, str | int]]:
    """Of each of `OTHER_FINDINGS`: how many references, predictions and both of a pair state it."""
    counts = Counter[tuple[str, str]]()
    for prediction, reference in zip(predictions, references, strict=True):
        stated, true = _present(prediction), _present(reference)
        sides = {"references": true, "predictions": stated, "both": true & stated}
        counts.update((finding, side) for side, named in sides.items() for finding in named)
    return [
        {"finding": finding}
        | {side: counts[finding, side] for side in ("references", "predictions", "both")}
        for finding in OTHER_FINDINGS
    ]


def _present(text: str) -> set[str]:
    told = find_other_findings(text)
    return {finding for finding, status in told.items() if status == "present"}
