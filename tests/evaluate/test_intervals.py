import numpy as np
import pytest

from ctscribe.evaluate.intervals import (
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


def test_intervals_cover_the_truth_in_95_of_100_data_sets() -> None:
    # 120 patients of one to three scans; patients differ, scans of one patient are alike.
    rng = np.random.default_rng(7)
    draws = draw_patients(120, 400, seed=0)
    truth, covered, data_sets = 0.6, 0, 500
    for _ in range(data_sets):
        scans = rng.integers(1, 4, size=120)
        rate = rng.beta(3, 2, size=120)
        hits = rng.binomial(scans, rate)
        interval = percentile_interval(ratio(draws @ np.stack([hits, scans], axis=1))["ratio"])
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert 0.93 <= covered / data_sets <= 0.97


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
