"""Systems side by side: their own cards, and paired differences on the same draws."""

import pytest

from ctscribe.measure.card_compare import compare_cards
from ctscribe.measure.card_scores import score_card
from ctscribe.measure.card_views import KEPT, VIEWS
from ctscribe.measure.scans import Answers
from tests.measure.test_card_scores import CONFIG, RIGHT, SAME, TRUTH, WRONG, N

HALF = Answers(RIGHT.sections, RIGHT.labels[: N // 2] + WRONG.labels[N // 2 :])


def written(real: Answers, other: Answers) -> dict[str, Answers]:
    return {view: real if view in ("real", KEPT) else other for view in VIEWS}


SYSTEMS = {
    "constant": written(SAME, SAME),
    "half": written(HALF, SAME),
    "perfect": written(RIGHT, WRONG),
}


def test_each_systems_numbers_are_those_of_its_own_card() -> None:
    found = compare_cards(SYSTEMS, TRUTH, CONFIG)
    assert found["base"] == "constant"
    for name, answers in SYSTEMS.items():
        card = score_card({}, answers, TRUTH, CONFIG)
        assert found["systems"][name]["dependence"] == card["dependence"]
        assert found["systems"][name]["verdict"] == card["verdict"]


def test_differences_are_paired() -> None:
    found = compare_cards(SYSTEMS, TRUTH, CONFIG)
    assert [*found["differences"]] == ["half", "perfect"]
    half = found["differences"]["half"]
    assert half["value"] == pytest.approx(0.4)
    assert half["low"] > 0
    assert found["differences"]["perfect"] == {"value": 1, "low": 1, "high": 1}
    twice = compare_cards({"a": SYSTEMS["half"], "b": SYSTEMS["half"]}, TRUTH, CONFIG)
    assert twice["differences"]["b"] == {"value": 0, "low": 0, "high": 0}
