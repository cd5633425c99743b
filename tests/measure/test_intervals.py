import numpy as np
import pytest
from jaxtyping import Float64, Int64

from ctscribe.measure.clinical import clinical_scores
from ctscribe.measure.intervals import (
    approximate_randomisation,
    draw_patients,
    holm,
    patient_index,
    percentile_interval,
    sum_by_patient,
)


def ratio(totals: np.ndarray) -> dict[str, np.ndarray]:
    return {"ratio": totals[:, 0] / totals[:, 1]}


def test_every_draw_has_as_many_patients_as_there_are() -> None:
    draws = draw_patients(30, 200, seed=1)
    assert draws.shape == (200, 30)
    assert (draws.sum(axis=1) == 30).all()
    assert (draws_of_same_seed := draw_patients(30, 200, seed=1)).tolist() == draws.tolist()
    assert draws_of_same_seed.var(axis=1).mean() == pytest.approx(1, abs=0.1)


def test_scans_of_a_patient_are_drawn_together() -> None:
    patients = patient_index(["b", "a", "b"])
    assert patients.tolist() == [1, 0, 1]
    assert sum_by_patient(np.array([[1.0], [2.0], [4.0]]), patients).tolist() == [[2.0], [5.0]]


def test_the_matrix_product_equals_drawing_scans_by_hand() -> None:
    rng = np.random.default_rng(3)
    patients, rows = np.array([0, 0, 1, 2, 2, 2]), rng.random((6, 2))
    draws = draw_patients(3, 50, seed=0)
    by_product = ratio(draws @ sum_by_patient(rows, patients))["ratio"]
    for counts, value in zip(draws, by_product, strict=True):
        drawn = np.repeat(rows, counts[patients].astype(int), axis=0)
        assert value == pytest.approx(drawn[:, 0].sum() / drawn[:, 1].sum())


DATA_SETS = 500
SCANS = np.tile([1, 1, 1, 2, 2, 4], 50)
"""Of each of 300 patients."""
OWNER = np.repeat(np.arange(len(SCANS)), SCANS)
ILL = 1.2 / 6.2
"""Mean share of the 18 findings that a patient has."""
TRUE_CELLS = np.array([[ILL / 2, (1 - ILL) * 0.15, ILL / 2, (1 - ILL) * 0.85]])
"""Expected TP, FP, FN, TN: half of the findings are seen, 0.15 of the others stated."""


def simulate_scans() -> Float64[np.ndarray, "data_sets scans 4"]:
    """TP, FP, FN, TN of scans whose patients differ in illness and in how well they are read."""
    rng = np.random.default_rng(11)
    shape = (DATA_SETS, len(SCANS))
    ill, seen = rng.beta(1.2, 5, shape)[:, OWNER], rng.beta(2, 2, shape)[:, OWNER]
    positives = rng.binomial(18, ill)
    hits = rng.binomial(positives, seen)
    alarms = rng.binomial(18 - positives, 0.05 + 0.2 * (1 - seen))
    cells = [hits, alarms, positives - hits, 18 - positives - alarms]
    return np.stack(cells, axis=2).astype(np.float64)


def micro_scores(cells: Float64[np.ndarray, "draws 4"]) -> dict[str, Float64[np.ndarray, "draws"]]:
    totals = np.zeros((len(cells), 77))
    totals[:, [0, 18, 36, 54]] = cells
    totals[:, -1] = cells.sum(axis=1) / 18
    scores = clinical_scores(totals)
    return {name: scores[name] for name in ("coverage", "precision", "f1", "label_accuracy", "crg")}


def covered_share(unit: Int64[np.ndarray, "scans"]) -> dict[str, float]:
    """How often each interval holds the true value when ``unit`` is what is drawn."""
    truth = micro_scores(TRUE_CELLS)
    draws = draw_patients(int(unit.max()) + 1, 1000, seed=0)
    covered = dict.fromkeys(truth, 0)
    for scans in simulate_scans():
        for name, drawn in micro_scores(draws @ sum_by_patient(scans, unit)).items():
            low, high = percentile_interval(drawn) or (np.nan, np.nan)
            covered[name] += int(low <= truth[name][0] <= high)
    return {name: count / DATA_SETS for name, count in covered.items()}


def test_intervals_cover_the_truth_in_95_of_100_data_sets() -> None:
    shares = covered_share(OWNER)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_intervals_that_take_scans_for_patients_are_too_short() -> None:
    assert max(covered_share(np.arange(len(OWNER))).values()) < 0.93


def test_an_undefined_score_has_no_interval() -> None:
    assert percentile_interval(np.full(5, np.nan)) is None


def test_randomisation_tells_a_real_difference_from_none() -> None:
    rng = np.random.default_rng(0)
    scans = np.ones(80)
    same = np.stack([rng.binomial(1, 0.5, 80), scans], axis=1).astype(float)
    better = np.stack([np.ones(80), scans], axis=1)
    p_same = approximate_randomisation(same, same.copy(), ratio, trials=999, seed=0)
    p_better = approximate_randomisation(same, better, ratio, trials=999, seed=0)
    assert p_same["ratio"] == 1
    assert p_better["ratio"] == 1 / 1000  # never zero


def test_holm_on_a_worked_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_draws_are_those_of_one_stream_whatever_is_held() -> None:
    drawn = np.random.default_rng(3).integers(7, size=(50, 7))
    expected = [np.bincount(row, minlength=7).tolist() for row in drawn]
    assert draw_patients(7, 50, 3).tolist() == expected
