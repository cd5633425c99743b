import itertools

import numpy as np
import pytest

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.intervals import Jackknife
from ctscribe.measure.ranking import RANKING, by_ranking, ranking_scores
from ctscribe.measure.scans import as_reports
from ctscribe.measure.scores import evaluate
from ctscribe.show.score_tables import breakdown_tables
from tests.studies import prediction, reported_studies


def score(probability: list[float], truth: list[int]) -> dict[str, float]:
    found = ranking_scores(
        np.array(probability), np.array(truth, dtype=bool), np.ones((len(truth), 1), np.float32)
    )
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize(
    ("probability", "truth", "auroc", "average_precision"),
    [
        # scikit-learn's own example of both metrics
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 3 / 4, 1 / 2 * 1 + 1 / 2 * 2 / 3),
        # one positive ties with one negative below another positive: pairs win 1, 1, ½, 1
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 3.5 / 4, 1 / 2 * 1 + 1 / 2 * 2 / 3),
        # all tie: chance, and the share of positives
        ([0.3] * 5, [1, 0, 0, 1, 0], 1 / 2, 2 / 5),
        # the order is wrong throughout
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0, 1 / 2 * 1 / 3 + 1 / 2 * 2 / 4),
        ([0.0, 1.0], [0, 1], 1, 1),
    ],
)
def test_values_of_the_definitions(
    probability: list[float], truth: list[int], auroc: float, average_precision: float
) -> None:
    found = score(probability, truth)
    assert found == pytest.approx({"auroc": auroc, "average_precision": average_precision})


def test_a_finding_that_all_or_none_have_is_not_ranked() -> None:
    assert np.isnan(score([0.2, 0.4], [0, 0])["auroc"])
    assert np.isnan(score([0.2, 0.4], [0, 0])["average_precision"])
    assert np.isnan(score([0.2, 0.4], [1, 1])["auroc"])
    assert score([0.2, 0.4], [1, 1])["average_precision"] == 1


def by_hand(probability: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Pair by pair and threshold by threshold."""
    pairs = list(itertools.product(probability[truth], probability[~truth]))
    auroc = np.mean([(one > other) + (one == other) / 2 for one, other in pairs])
    area, recall = 0.0, 0.0
    for threshold in sorted(set(probability.tolist()), reverse=True):
        shown = probability >= threshold
        reached = truth[shown].sum() / truth.sum()
        area, recall = area + truth[shown].mean() * (reached - recall), reached
    return float(auroc), float(area)


def test_a_draw_scores_what_its_scans_score_when_they_are_written_out() -> None:
    rng = np.random.default_rng(3)
    probability = rng.integers(0, 8, size=40) / 8
    truth = rng.random(40) < 0.3
    weight = rng.multinomial(40, [1 / 40] * 40, 20).T.astype(np.float32)
    found = ranking_scores(probability, truth, weight)
    for i, times in enumerate(weight.T.astype(int)):
        expected = by_hand(np.repeat(probability, times), np.repeat(truth, times))
        assert (found["auroc"][i], found["average_precision"][i]) == pytest.approx(expected)


def test_each_patient_is_left_out_also_where_it_takes_several_parts() -> None:
    studies = reported_studies(200)
    truth = as_reports(studies)
    told = np.random.default_rng(0).random((200, 18)).round(1)
    patients = [study.patient_id for study in truth]
    found = by_ranking(told, truth, Jackknife.of(patients))
    row = next(row for row in found["per_finding"] if row["finding"] == "Hiatal hernia")
    assert 10 < row["positives"] < 200
    assert row["auroc"]["low"] < row["auroc"]["value"] < row["auroc"]["high"]
    nobody = next(row for row in found["per_finding"] if row["finding"] == "Atelectasis")
    assert nobody["positives"] == 0
    assert nobody["auroc"] == nobody["average_precision"] == dict.fromkeys(("value", "low", "high"))
    defined = [row["auroc"]["value"] for row in found["per_finding"] if row["positives"]]
    assert found["macro"]["auroc"]["value"] == pytest.approx(np.mean(defined))


def test_a_label_head_is_ranked_beside_the_reports() -> None:
    studies, training = reported_studies(20), reported_studies(20, "train")
    told = {row.scan_id: [0.25 + label / 2 for label in row.labels or ()] for row in studies}
    rows, config = [prediction(row) for row in studies], EvaluateConfig(resamples=100)
    scores = evaluate(rows, studies, training, config, label_head=told)
    assert {name: scores["ranking"]["macro"][name]["value"] for name in RANKING} == {
        "auroc": 1.0,
        "average_precision": 1.0,
    }
    titles = [table.title for table in breakdown_tables(scores)]
    assert "Probabilities of the label head" in titles
    without = evaluate(rows, studies, training, config)
    assert "ranking" not in without
    assert len(breakdown_tables(without)) == len(titles) - 1
