"""Dependence on hand-made answers: who looks, who recites, who writes what is not there."""

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.types import Labels
from ctscribe.measure.card_scores import METRICS, require_dependence, score_card
from ctscribe.measure.card_views import VIEWS
from ctscribe.measure.scans import Answers, ScanReport
from ctscribe.text.findings import FINDINGS

CONFIG = EvaluateConfig(resamples=200)
N = 12


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


def card(real: Answers, other: Answers, other_ce: float = 2.0) -> dict:  # type: ignore[type-arg]
    answers = {view: real if view == "real" else other for view in VIEWS}
    ce = {view: np.full(N, 1.0 if view == "real" else other_ce) for view in VIEWS}
    return score_card(ce, answers, TRUTH, CONFIG)


def test_a_model_that_recites_has_dependence_0_in_every_draw() -> None:
    found = card(SAME, SAME, other_ce=1.0)
    assert found["dependence"] == {"value": 0, "low": 0, "high": 0, "against": "other_patient"}
    view = found["views"]["noise"]
    assert view["ce_gap"] == {"value": 0, "low": 0, "high": 0}
    assert view["bleu_4"]["value"] == pytest.approx(1)
    assert view["label_agreement"]["value"] == 1


def test_a_model_that_is_right_and_looks_has_dependence_1() -> None:
    found = card(RIGHT, WRONG)
    assert found["dependence"]["value"] == found["dependence"]["low"] == 1
    view = found["views"]["other_patient"]
    assert view["coverage"]["value"] == view["label_agreement"]["value"] == 0
    assert view["ce_gap"]["value"] == 1
    assert view["perplexity"]["value"] == pytest.approx(np.e**2)


def test_chance_is_taken_off() -> None:
    # F1 given the scan 6/12, given another 2/12: a third of what chance leaves to gain, 4/10.
    half = Answers(RIGHT.sections, RIGHT.labels[:6] + WRONG.labels[6:])
    found = card(half, SAME)
    assert found["views"]["real"]["f1"]["value"] == pytest.approx(0.5)
    assert found["views"]["other_patient"]["f1"]["value"] == pytest.approx(1 / 6)
    assert found["dependence"]["value"] == pytest.approx(0.4)
    assert found["dependence"]["low"] < 0.4 < found["dependence"]["high"]
    # writing better from a wrong scan is negative: (1/6 − 1/2) / (1 − 1/2)
    assert card(SAME, half)["dependence"]["value"] == pytest.approx(-2 / 3)


def test_the_real_view_is_not_compared_with_itself() -> None:
    views = card(RIGHT, WRONG)["views"]
    compared = {"ce_gap", "bleu_4", "label_agreement", "dependence"}
    assert METRICS.keys() - views["real"].keys() == compared
    assert views["noise"].keys() == METRICS.keys()


def test_every_finding_has_its_numbers_under_every_view() -> None:
    rows = {row["finding"]: row for row in card(RIGHT, WRONG)["per_finding"]}
    assert list(rows) == list(FINDINGS)
    first, last = rows[FINDINGS[0]], rows[FINDINGS[-1]]
    assert (first["positives"], last["positives"]) == (2, 0)
    few = {"low": None, "high": None, "too_few_patients": 2}
    assert first["views"]["real"]["coverage"] == {"value": 1, **few}
    assert first["views"]["noise"]["coverage"]["value"] == 0
    assert first["views"]["noise"]["label_agreement"]["value"] == 0
    assert last["views"]["real"]["coverage"]["value"] is None


def test_the_gate_goes_by_the_lower_bound() -> None:
    found = {"dependence": {"value": 0.4, "low": 0.25, "high": 0.6}}
    require_dependence(found, 0.25)
    with pytest.raises(CtscribeError, match=r"0\.400 \[0\.250, 0\.600\].*E_DEPENDENCE"):
        require_dependence(found, 0.26)
    undefined = {"dependence": {"value": None, "low": None, "high": None}}
    with pytest.raises(CtscribeError, match="is undefined"):
        require_dependence(undefined, -1.0)
