"""A draft held against itself and against what the images say.

In: its text, what it says of each finding with the images' probability, the run's calibration.
Out: `SelfCheck`. Nothing is taken from the draft.
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
    """Reads a draft for what its reader should look at.

    Args:
        text: As written, with both sections.
        rows: Of every finding, with the images' probability where there is one.
        calibration: Of the run that wrote it; None where it has none.
        finished: Whether the text came to an end of its own.
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
    """Never as certain as rounding would make it."""
    if probability > 0.99:
        return "more than 99 %"
    return "less than 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"
