import pytest

from ctscribe.measure.beyond_labels import (
    count_other_findings,
    count_wrong_places,
    placed_findings,
)
from ctscribe.text.findings import FINDINGS

EFFUSION, NODULE = "Pleural effusion", "Lung nodule"


@pytest.mark.parametrize(
    ("prediction", "reference", "wrong_side", "wrong_size"),
    [
        ("Effusion on the right.", "Effusion on the left.", True, None),
        ("Effusion on the right.", "Effusion on the right.", False, None),
        ("Effusion on the right.", "Bilateral effusion.", True, None),
        ("Effusion on the right.", "Effusion is seen.", None, None),
        ("Effusion of 30 mm.", "Effusion of 12 mm.", None, True),
        ("Effusion of 30 mm.", "Effusion of 26 mm.", None, False),
        ("Effusion of 5 mm.", "Effusion of 3.5 mm.", None, False),
        ("Effusion of 5 mm on the left.", "Effusion of 9 mm on the left.", False, True),
    ],
)
def test_sides_and_sizes_are_compared_where_both_state_them(
    prediction: str, reference: str, wrong_side: bool | None, wrong_size: bool | None
) -> None:
    (placed,) = placed_findings(prediction=prediction, reference=reference)
    assert placed.finding == EFFUSION
    assert (placed.wrong_side, placed.wrong_size) == (wrong_side, wrong_size)


def test_a_finding_that_one_report_lacks_is_missing_and_not_misplaced() -> None:
    assert not list(placed_findings(prediction="No effusion.", reference="Effusion on the left."))


def test_counts_are_of_scans_and_per_finding() -> None:
    counts = count_wrong_places(
        predictions=["A 9 mm nodule on the left. Effusion.", "A 5 mm nodule on the left.", ""],
        references=["A 4 mm nodule on the right. Effusion.", "A 5 mm nodule on the left.", "x"],
    )
    assert counts[FINDINGS.index(NODULE)] == {
        "sides_compared": 2,
        "wrong_side": 1,
        "sizes_compared": 2,
        "wrong_size": 1,
    }
    assert not any(counts[FINDINGS.index(EFFUSION)].values())


def test_other_findings_are_counted_where_they_are_stated() -> None:
    counts = count_other_findings(
        predictions=["Rib fracture. No pneumothorax.", "Fracture of a rib."],
        references=["Old rib fractures. Gallstones.", "No fracture. Pneumothorax?"],
    )
    told = {row.pop("finding"): row for row in counts}
    assert told["Fracture"] == {"references": 1, "predictions": 2, "both": 1}
    assert told["Gallstones"] == {"references": 1, "predictions": 0, "both": 0}
    assert not any(told["Pneumothorax"].values())
