import pytest

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.compare import ALPHA, compare, enough_trials
from ctscribe.measure.statistics import ALL_METRICS
from ctscribe.show.score_tables import differences_table
from tests.studies import prediction, reported_studies

CONFIG = EvaluateConfig(resamples=500, seed=0)
STUDIES = reported_studies(40)
PERFECT = [prediction(study) for study in STUDIES]


def test_a_run_does_not_differ_from_itself() -> None:
    table = compare([PERFECT], {"other": [PERFECT]}, STUDIES, CONFIG)["differences"]["other"]
    assert all(row["difference"] == 0 and row["p"] == 1 for row in table.values())
    assert not any(row["holds"] for row in table.values())


def test_a_perfect_run_beats_an_empty_one_in_both_directions() -> None:
    ahead = compare([[]], {"perfect": [PERFECT]}, STUDIES, CONFIG)["differences"]["perfect"]
    behind = compare([PERFECT], {"empty": [[]]}, STUDIES, CONFIG)["differences"]["empty"]
    assert ahead["coverage"]["difference"] == 1 == -behind["coverage"]["difference"]
    assert ahead["coverage"]["holds"]
    assert ahead["coverage"]["p"] == 1 / (enough_trials(500, len(ALL_METRICS)) + 1)
    assert ahead["bleu_1"]["low"] > 0 > behind["bleu_1"]["high"]


def test_one_better_report_of_forty_is_not_a_difference() -> None:
    rows = [prediction(study, "The heart is of normal size.") for study in STUDIES]
    other = [prediction(STUDIES[0]), *rows[1:]]
    table = compare([rows], {"other": [other]}, STUDIES, CONFIG)["differences"]["other"]
    assert not any(row["holds"] for row in table.values())


def test_the_family_is_all_metrics_of_all_systems() -> None:
    alone = compare([[]], {"perfect": [PERFECT]}, STUDIES, CONFIG)
    both = compare([[]], {"perfect": [PERFECT], "empty": [[]]}, STUDIES, CONFIG)
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
    found = compare([[]], {"two seeds": [PERFECT, []]}, STUDIES, CONFIG)
    assert found["differences"]["two seeds"]["coverage"]["difference"] == 0.5


def test_missing_reports_are_listed_and_told() -> None:
    few = {"few": [PERFECT[20:]], "seeds": [PERFECT[1:], PERFECT[2:]]}
    found = compare([PERFECT], few, STUDIES, CONFIG)
    ids = sorted(study.scan_id for study in STUDIES)
    assert found["missing_of_base"] == []
    assert found["missing"]["few"] == sorted({s.scan_id for s in STUDIES[:20]}, key=ids.index)
    assert found["missing"]["seeds"] == sorted({s.scan_id for s in STUDIES[:2]}, key=ids.index)
    notes = " ".join(differences_table("all", found).notes)
    assert "few: 20 of 40 scans have no report, which counts as an empty one." in notes
    assert "seeds: 2 of 40" in notes
    assert "all: " not in notes
