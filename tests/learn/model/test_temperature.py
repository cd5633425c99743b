import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ctscribe.learn.model.temperature import fit_temperature


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
