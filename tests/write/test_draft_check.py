"""A draft held against the images' probabilities."""

from dataclasses import replace

import pytest

from ctscribe.write.calibration import Calibration
from ctscribe.write.draft import SelfCheck, finding_rows
from ctscribe.write.draft_check import NOT_CALIBRATED, TOO_FEW, check_draft

TEXT = "Findings: Atelectasis is seen. No pleural effusion is seen.\nImpression: Atelectasis."
FITTED = Calibration(
    weights_sha256="",
    finding_slope=1.0,
    finding_offsets=(0.0,) * 18,
    threshold=0.4,
    cue_threshold=0.4,
    remark_bounds=(0.15, 0.9),
)


def check(calibration: Calibration | None, **probabilities: float) -> SelfCheck:
    """With 0.1 for what is not named, and what the text says of itself true."""
    known = {"Atelectasis": 0.8} | {
        name.replace("_", " "): value for name, value in probabilities.items()
    }
    rows = [replace(row, probability=known.get(row.finding, 0.1)) for row in finding_rows(TEXT)]
    return check_draft(TEXT, rows, calibration, finished=True)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ({}, []),
        ({"Hiatal_hernia": 0.97}, [("images", "not mentioned")]),
        ({"Atelectasis": 0.14}, [("images", "stated")]),
        ({"Pleural_effusion": 0.95}, [("images", "denied")]),
        ({"Hiatal_hernia": 0.6}, [("doubted", "not mentioned")]),
        ({"Atelectasis": 0.3}, [("doubted", "stated")]),
        ({"Atelectasis": 0.14, "Hiatal_hernia": 0.5}, [("images", "stated"), ("doubted", "not")]),
    ],
)
def test_text_and_images_are_held_against_each_other(
    probabilities: dict[str, float], expected: list[tuple[str, str]]
) -> None:
    found = check(FITTED, **probabilities)
    assert found.unchecked is None
    assert [remark.kind for remark in found.remarks] == [kind for kind, _ in expected]
    for remark, (_, said) in zip(found.remarks, expected, strict=True):
        assert f" is {said}" in remark.message
        assert f"{100 * probabilities[str(remark.finding).replace(' ', '_')]:.0f} %" in (
            remark.message
        )


@pytest.mark.parametrize(
    ("probability", "said"), [(0.998, "more than 99 %"), (0.99, "99 %"), (0.9301, "93 %")]
)
def test_nothing_is_said_to_be_certain(probability: float, said: str) -> None:
    (remark,) = check(FITTED, Hiatal_hernia=probability).remarks
    assert f"the images make it {said} probable." in remark.message


def test_what_the_text_doubts_is_not_held_against_it() -> None:
    rows = [
        replace(row, probability=0.97 if row.finding == "Consolidation" else 0.1)
        for row in finding_rows("Consolidation? No effusion.")
    ]
    found = check_draft("Consolidation? No effusion.", rows, FITTED, finished=True)
    assert "images" not in {remark.kind for remark in found.remarks}


def test_without_a_calibration_it_says_so() -> None:
    assert check(None, Hiatal_hernia=0.97) == SelfCheck((), NOT_CALIBRATED)
    rows = finding_rows(TEXT)
    assert check_draft(TEXT, rows, FITTED, finished=True) == SelfCheck((), NOT_CALIBRATED)


def test_without_bounds_only_leanings_are_told() -> None:
    few = FITTED.model_copy(update={"remark_bounds": None})
    found = check(few, Hiatal_hernia=0.97)
    assert found.unchecked == TOO_FEW
    assert not found.marks
    assert [remark.kind for remark in found.notes] == ["doubted"]


def test_an_empty_draft_says_that_it_is() -> None:
    rows = finding_rows("")
    found = check_draft("", rows, FITTED, finished=True)
    assert {remark.kind for remark in found.remarks} == {"empty"}
