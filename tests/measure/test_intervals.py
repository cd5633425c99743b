import numpy as np
import pytest
from jaxtyping import Float64, Int64
from scipy.stats import binom

from ctscribe.measure.clinical import clinical_scores
from ctscribe.measure.intervals import (
    CIDER,
    CORPUS,
    RATE,
    Jackknife,
    Kind,
    approximate_randomisation,
    holm,
    jackknife_interval,
    mean_with_interval,
    patient_index,
    sum_by_patient,
    sums_without_each,
    with_interval,
)


def ratio(totals: np.ndarray) -> dict[str, np.ndarray]:
    return {"ratio": totals[:, 0] / totals[:, 1]}


def test_scans_of_a_patient_are_left_out_together() -> None:
    assert patient_index(["b", "a", "b"]).tolist() == [1, 0, 1]
    whole, without = Jackknife.of(["b", "a", "b"]).sums(np.array([[1.0], [2.0], [4.0]]))
    assert whole.tolist() == [[7.0]]
    assert without.tolist() == [[5.0], [2.0]]  # without a, then without b


def test_a_mean_has_the_interval_of_students_t() -> None:
    values = np.random.default_rng(1).normal(3, 2, 25)
    found = mean_with_interval(values, [str(n) for n in range(25)])
    reach = 2.0639 * values.std(ddof=1) / 5
    assert found["value"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), abs=1e-4
    )


def rate_interval(hits: int, cases: int) -> tuple[float, float]:
    hit = np.arange(cases) < hits
    without = (hits - hit) / (cases - 1)
    return jackknife_interval(hits / cases, without, highest=1.0)


@pytest.mark.parametrize("cases", [10, 15, 40, 100, 300])
def test_a_rate_is_covered_wherever_it_lies_and_stays_a_rate(cases: int) -> None:
    intervals = [rate_interval(hits, cases) for hits in range(cases + 1)]
    assert all(0 <= low < high <= 1 for low, high in intervals)
    for rate in np.linspace(0.02, 0.98, 33):
        held = [low <= rate <= high for low, high in intervals]
        assert binom.pmf(np.flatnonzero(held), cases, rate).sum() > 0.93


def test_where_all_agree_the_interval_is_the_exact_one() -> None:
    assert rate_interval(40, 40) == pytest.approx((0.025 ** (1 / 40), 1))
    assert rate_interval(0, 40) == pytest.approx((0, 1 - 0.025 ** (1 / 40)))
    point, without = np.array([1.0]), np.ones(300)
    of_few = with_interval(point, without, RATE, patients=12)  # a finding of twelve patients
    assert of_few["low"] == pytest.approx(0.025 ** (1 / 12))


@pytest.mark.parametrize(
    ("kind", "least"), [(RATE, 10), (RATE.difference, 40), (CORPUS, 40), (CIDER, 1000)]
)
def test_with_too_few_patients_there_are_no_bounds(kind: Kind, least: int) -> None:
    values = np.random.default_rng(0).uniform(0.4, 0.5, least)
    few = with_interval(values[:1], values[1:], kind)
    assert few == {"value": values[0], "low": None, "high": None, "too_few_patients": least - 1}
    assert with_interval(values[:1], values, kind)["low"] < values[0]


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
    """How often each interval holds the true value when ``unit`` is what is left out."""
    truth = micro_scores(TRUE_CELLS)
    covered = dict.fromkeys(truth, 0)
    for scans in simulate_scans():
        whole, without = map(micro_scores, sums_without_each(sum_by_patient(scans, unit)))
        for name in truth:
            low, high = jackknife_interval(float(whole[name][0]), without[name], highest=1.0)
            covered[name] += int(low <= truth[name][0] <= high)
    return {name: count / DATA_SETS for name, count in covered.items()}


def test_intervals_cover_the_truth_in_95_of_100_data_sets() -> None:
    shares = covered_share(OWNER)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_intervals_that_take_scans_for_patients_are_too_short() -> None:
    assert max(covered_share(np.arange(len(OWNER))).values()) < 0.93


def test_an_undefined_score_has_no_interval() -> None:
    undefined = np.full(50, np.nan)
    assert with_interval(undefined[:1], undefined, RATE)["value"] is None
    assert mean_with_interval(np.empty(0), ())["value"] is None


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
