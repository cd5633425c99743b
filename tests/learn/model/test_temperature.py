import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ctscribe.learn.model.temperature import choose_threshold, fit_temperature
from tests.refusals import refusal


@given(st.floats(0.3, 2.5), st.floats(-1.5, 1.5), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_it_finds_the_slope_and_offset_that_were_used(
    slope: float, offset: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    odds = draw.normal(0, 2, (20_000, 1))
    truth = draw.random(20_000) < expit(slope * odds[:, 0] + offset)
    fitted = fit_temperature(odds, np.zeros(20_000, int), truth, 1)
    assert fitted.slopes[0] == pytest.approx(slope, rel=0.12)
    assert fitted.offsets[0] == pytest.approx(offset, abs=0.12)


def test_groups_get_offsets_of_their_own_and_empty_ones_none() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 2, 40_000)
    odds = draw.normal(0, 2, (40_000, 1))
    truth = draw.random(40_000) < expit(odds[:, 0] + np.array([1.0, -1.0])[groups])
    fitted = fit_temperature(odds, groups, truth, 3)
    assert fitted.offsets[:2] == pytest.approx((1, -1), abs=0.1)
    assert fitted.offsets[2] == pytest.approx(0, abs=1e-6)


def test_nothing_to_learn_from_changes_nothing() -> None:
    fitted = fit_temperature(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, bool), 2)
    assert fitted.slopes == pytest.approx((1, 1))
    assert fitted.apply(np.array([[0.3, -0.1]]), np.array([1]))[0] == pytest.approx(expit(0.2))


def test_two_cases_do_not_make_it_certain() -> None:
    odds, truth = np.array([[3.0], [-3.0]]), np.array([True, False])
    fitted = fit_temperature(odds, np.zeros(2, int), truth, 1)
    assert 1 <= fitted.slopes[0] < 2


PROBABILITY = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
TRUTH = np.array([True, True, False, True, False])


@pytest.mark.parametrize(
    ("point", "stated"), [("f1", 4), ("coverage=0.6", 2), ("precision=1", 2), ("precision=0.7", 4)]
)
def test_an_operating_point_is_reached_with_no_more_than_it_asks(point: str, stated: int) -> None:
    threshold = choose_threshold(PROBABILITY, TRUTH, point)
    assert (threshold <= PROBABILITY).sum() == stated


@pytest.mark.parametrize(
    "point", ["f1=0.5", "recall=0.5", "precision=x", "precision=nan", "", "0.5"]
)
def test_a_point_that_is_none_or_is_not_reached_is_refused(point: str) -> None:
    with refusal("E_OPERATING_POINT", "must be f1, or coverage or precision"):
        choose_threshold(PROBABILITY, TRUTH, point)
    with refusal("E_OPERATING_POINT"):
        choose_threshold(PROBABILITY[::-1], TRUTH, "precision=1")
