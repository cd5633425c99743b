"""Evidence of a report's sentences, as its page, JSON and text show it."""

from collections.abc import Sequence

from ctscribe.evidence.rows import SentenceEvidence
from ctscribe.export.report import SentenceRow, SliceEvidence


def sentence_rows(
    evidence: Sequence[SentenceEvidence],
    confidences: Sequence[float | None],
) -> tuple[SentenceRow, ...]:
    """The two slices each sentence rests on most, and whether it is boilerplate.

    A sentence that affirms a finding is never boilerplate: its finding has slices even where its
    words follow from the words before.

    Args:
        evidence: From `evidence.explain.explain`.
        confidences: Calibrated, per sentence, where known.
    """
    rows = []
    for each, confidence in zip(evidence, confidences, strict=True):
        boilerplate = not each.particular and not each.findings
        best = each.pairs[0]
        numbers = (2 * best.pair + 1, 2 * best.pair + 2)
        slices = tuple(
            SliceEvidence(number, index, position, best.box_px)
            for number, index, position in zip(
                numbers, best.slice_indices, best.position_mm, strict=True
            )
        )
        rows.append(SentenceRow(() if boilerplate else slices, boilerplate, best.drop, confidence))
    return tuple(rows)
