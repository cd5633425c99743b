import pytest

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.compare import ALPHA, compare, enough_trials
from tests.studies import prediction, reported_studies

CONFIG = EvaluateConfig(resamples=500, seed=0)


def test_a_run_does_not_differ_from_itself() -> None:
    studies = reported_studies(20)
    rows = [prediction(study) for study in studies]
    table = compare([rows], {"other": [rows]}, studies, CONFIG)["differences"]["other"]
    assert all(row["difference"] == 0 and row["p"] == 1 for row in table.values())
    assert not any(row["holds"] for row in table.values())


def test_a_perfect_run_beats_an_empty_one_in_both_directions() -> None:
    studies = reported_studies(40)
    perfect = [prediction(study) for study in studies]
    ahead = compare([[]], {"perfect": [perfect]}, studies, CONFIG)["differences"]["perfect"]
    behind = compare([perfect], {"empty": [[]]}, studies, CONFIG)["differences"]["empty"]
    assert ahead["coverage"]["difference"] == 1 == -behind["coverage"]["difference"]
    assert ahead["coverage"]["holds"]
    assert ahead["coverage"]["p"] == 1 / (enough_trials(500, 16) + 1)
    assert ahead["bleu_1"]["low"] > 0 > behind["bleu_1"]["high"]


def test_one_better_report_of_forty_is_not_a_difference() -> None:
    studies = reported_studies(40)
    rows = [prediction(study, "The heart is of normal size.") for study in studies]
    other = [prediction(studies[0]), *rows[1:]]
    table = compare([rows], {"other": [other]}, studies, CONFIG)["differences"]["other"]
    assert not any(row["holds"] for row in table.values())


def test_the_family_is_all_metrics_of_all_systems() -> None:
    studies = reported_studies(30)
    perfect = [prediction(study) for study in studies]
    alone = compare([[]], {"perfect": [perfect]}, studies, CONFIG)
    both = compare([[]], {"perfect": [perfect], "empty": [[]]}, studies, CONFIG)
    assert both["n"]["family"] == 2 * alone["n"]["family"]
    rows = [row for found in both["differences"].values() for row in found.values()]
    smallest = min(row["p"] for row in rows)
    assert smallest == 1 / (both["n"]["trials"] + 1)
    assert min(row["p_holm"] for row in rows) == pytest.approx(both["n"]["family"] * smallest)
    assert not any(row["holds"] for row in both["differences"]["empty"].values())


def test_the_smallest_p_can_hold_in_any_family() -> None:
    for family in (1, 16, 96, 1000):
        assert family / (enough_trials(2000, family) + 1) < ALPHA


def test_seeds_are_scored_together() -> None:
    studies = reported_studies(30)
    perfect = [prediction(study) for study in studies]
    found = compare([[]], {"two seeds": [perfect, []]}, studies, CONFIG)
    assert found["differences"]["two seeds"]["coverage"]["difference"] == 0.5
