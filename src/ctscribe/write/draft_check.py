"""Checks a draft for contradictions within its text, and between text and images.

In: the text, the status and probability of each finding, the run's calibration. Out: `SelfCheck`.
The draft itself is not changed.
"""

from collections.abc import Iterator, Sequence

from ctscribe.text.sections import split_report
from ctscribe.text.self_check import Remark, check_text, in_order
from ctscribe.write.calibration import Calibration
from ctscribe.write.draft import FindingRow, SelfCheck

NOT_CALIBRATED = (
    "The text was not held against the images: the run has no calibrated probabilities of the "
    "findings (ctscribe calibrate, for a run with finding queries)."
)
TOO_FEW = (
    "Between text and images only leanings are told: too few validation scans say how far apart "
    "they are in true reports."
)


def check_draft(
    text: str, rows: Sequence[FindingRow], calibration: Calibration | None, *, finished: bool
) -> SelfCheck:
    """Collects remarks on a draft.

    Args:
        text: As written, with both sections.
        rows: One per finding, with the finding queries' probability where there is one.
        calibration: The run's; None where it has none.
        finished: Whether the text is complete.
    """
    remarks = check_text(*split_report(text), finished=finished)
    if calibration is None or all(row.probability is None for row in rows):
        return SelfCheck(tuple(remarks), NOT_CALIBRATED)
    seen = [*remarks, *_against_images(rows, calibration)]
    return SelfCheck(tuple(in_order(seen)), None if calibration.remark_bounds else TOO_FEW)


def _against_images(rows: Sequence[FindingRow], calibration: Calibration) -> Iterator[Remark]:
    low, high = calibration.remark_bounds or (0.0, 1.0)
    for row in rows:
        if row.probability is None or row.status == "uncertain":
            continue
        stated = row.status == "present"
        if stated == (row.probability >= calibration.threshold):
            continue
        beyond = row.probability < low if stated else row.probability > high
        seen = _percent(row.probability)
        said = {"present": "stated", "absent": "denied"}.get(row.status, row.status)
        yield Remark(
            "images" if beyond else "doubted",
            f"{row.finding} is {said}, but the images make it {seen} probable.",
            row.finding,
            row.sentences,
        )


def _percent(probability: float) -> str:
    """Percentage that is never rounded to 0 or 100 %."""
    if probability > 0.99:
        return "more than 99 %"
    return "less than 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"
