"""Dependence on hand-made answers: who looks, who recites, who writes what is not there."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.types import Labels
from ctscribe.measure.card_scores import (
    FEWEST_PATIENTS,
    METRICS,
    require_dependence,
    score_card,
)
from ctscribe.measure.card_views import GATED, KEPT, REMOVED, VIEWS
from ctscribe.measure.scans import Answers, ScanReport
from ctscribe.text.findings import FINDINGS
from tests.refusals import refusal

CONFIG = EvaluateConfig(resamples=200)
N = 48


def labels_of(*present: int) -> Labels:
    return tuple(int(i in present) for i in range(len(FINDINGS)))


TRUTH = [
    ScanReport(
        f"scan_{i:02}", f"patient_{i:02}", f"Finding number {i} is seen here.", "", labels_of(i % 6)
    )
    for i in range(N)
]
RIGHT = Answers(tuple(r.sections for r in TRUTH), tuple(r.labels for r in TRUTH))
# The next patient's report: never the right finding.
WRONG = Answers(RIGHT.sections[1:] + RIGHT.sections[:1], RIGHT.labels[1:] + RIGHT.labels[:1])
SAME = Answers((("Finding number 0 is seen here.", ""),) * N, (labels_of(0),) * N)


def card(
    real: Answers,
    other: Answers,
    other_ce: float = 2.0,
    truth: list[ScanReport] = TRUTH,
    lacking: str = "",
    changed: Mapping[str, Answers] | None = None,
) -> dict[str, Any]:
    """Of a model that writes one thing given the scan on any grid, and another of all else."""
    answers = {view: real if view in ("real", KEPT) else other for view in VIEWS}
    answers |= changed or {}
    answers.pop(lacking, None)
    ce = {view: np.full(N, 1.0 if view == "real" else other_ce) for view in answers}
    return score_card(ce, answers, truth, CONFIG)


def test_a_model_that_recites_has_dependence_0_in_every_draw() -> None:
    found = card(SAME, SAME, other_ce=1.0)
    assert found["dependence"] == {"value": 0, "low": 0, "high": 0, "against": "noise"}
    assert found["verdict"] == "open"
    view = found["views"]["noise"]
    assert view["ce_gap"] == {"value": 0, "low": 0, "high": 0}
    assert view["bleu_4"]["value"] == pytest.approx(1)
    assert view["label_agreement"]["value"] == 1


def test_a_model_that_is_right_and_looks_has_dependence_1() -> None:
    found = card(RIGHT, WRONG)
    assert found["dependence"]["value"] == found["dependence"]["low"] == 1
    assert found["verdict"] == "looks"
    require_dependence(found, 1.0)
    view = found["views"]["other_patient"]
    assert view["coverage"]["value"] == view["label_agreement"]["value"] == 0
    assert view["ce_gap"]["value"] == 1
    assert view["perplexity"]["value"] == pytest.approx(np.e**2)


def test_chance_is_taken_off() -> None:
    # F1 given the scan 1/2, given another 1/6: two fifths of what chance leaves to gain, 5/6.
    half = Answers(RIGHT.sections, RIGHT.labels[: N // 2] + WRONG.labels[N // 2 :])
    found = card(half, SAME)
    assert found["views"]["real"]["f1"]["value"] == pytest.approx(0.5)
    assert found["views"]["other_patient"]["f1"]["value"] == pytest.approx(1 / 6)
    assert found["dependence"]["value"] == pytest.approx(0.4)
    assert found["dependence"]["low"] < 0.4 < found["dependence"]["high"]
    # writing better from a wrong scan is as much below 0, however right that is
    assert card(SAME, half)["dependence"]["value"] == pytest.approx(-0.4)
    assert card(WRONG, RIGHT)["dependence"]["value"] == -1


def test_the_real_view_is_not_compared_with_itself() -> None:
    views = card(RIGHT, WRONG)["views"]
    compared = {"ce_gap", "bleu_4", "label_agreement", "dependence"}
    assert METRICS.keys() - views["real"].keys() == compared
    assert views["noise"].keys() == METRICS.keys()


def test_every_finding_has_its_numbers_under_every_view() -> None:
    rows = {row["finding"]: row for row in card(RIGHT, WRONG)["per_finding"]}
    assert list(rows) == list(FINDINGS)
    first, last = rows[FINDINGS[0]], rows[FINDINGS[-1]]
    assert (first["positives"], last["positives"]) == (N // 6, 0)
    few = {"low": None, "high": None, "too_few_patients": N // 6}
    assert first["views"]["real"]["coverage"] == {"value": 1, **few}
    assert first["views"]["noise"]["coverage"]["value"] == 0
    assert first["views"]["noise"]["label_agreement"]["value"] == 0
    assert last["views"]["real"]["coverage"]["value"] is None


@pytest.mark.parametrize("view", REMOVED)
def test_one_view_from_which_nothing_is_lost_is_enough_to_fail(view: str) -> None:
    found = card(RIGHT, WRONG, changed={view: RIGHT})
    assert found["dependence"] == {"value": 0, "low": 0, "high": 0, "against": view}
    assert found["verdict"] == "open"
    with refusal("E_DEPENDENCE", f"above 0 and reach 0, but .* on the view {view} is 0.000"):
        require_dependence(found, 0.0)


def test_who_writes_another_report_on_another_grid_does_not_look() -> None:
    found = card(RIGHT, WRONG, changed={KEPT: SAME, "blank": SAME})
    assert found["dependence"] == {"value": 0, "low": 0, "high": 0, "against": KEPT}
    assert found["views"][KEPT]["label_agreement"]["value"] == pytest.approx(1 / 6)


def test_order_and_half_of_the_slices_may_matter_or_not() -> None:
    assert card(RIGHT, WRONG, changed={"shuffled": RIGHT, "dropped": RIGHT})["verdict"] == "looks"


@pytest.mark.parametrize("view", [view for view in GATED if view != "other_patient"])
def test_a_view_that_was_not_shown_weakens_the_verdict_and_holds_the_gate(view: str) -> None:
    found = card(RIGHT, WRONG, lacking=view)
    assert found["verdict"] == "looks so far"
    assert found["not_shown"] == [view]
    with refusal("E_DEPENDENCE", f"under all views, but {view} were not shown"):
        require_dependence(found, 0.1)


def test_too_few_patients_with_a_finding_are_a_verdict_of_their_own() -> None:
    healthy = [
        ScanReport(r.scan_id, r.patient_id, r.findings, "", labels_of())
        for r in TRUTH[FEWEST_PATIENTS - 1 :]
    ]
    found = card(RIGHT, WRONG, truth=[*TRUTH[: FEWEST_PATIENTS - 1], *healthy])
    assert found["dependence"]["low"] > 0
    assert found["verdict"] == "too few"
    with refusal("E_DEPENDENCE", "on 40 patients with a finding or more, but was on 39"):
        require_dependence(found, 0.1)


def test_what_cannot_be_told_in_any_draw_is_undefined() -> None:
    truth = [ScanReport(r.scan_id, r.patient_id, "Clear.", "", labels_of()) for r in TRUTH]
    nothing = Answers((("Clear.", ""),) * N, (labels_of(),) * N)
    found = card(nothing, nothing, truth=truth)
    assert found["dependence"]["value"] is None
    assert found["verdict"] == "too few"


def test_the_gate_goes_by_the_lower_bound() -> None:
    half = Answers(RIGHT.sections, RIGHT.labels[: N // 2] + WRONG.labels[N // 2 :])
    found = card(half, SAME)
    require_dependence(found, found["dependence"]["low"])
    with refusal("E_DEPENDENCE", r"reach 0\.39, but .* is 0\.400 \["):
        require_dependence(found, 0.39)
