import pytest

from ctscribe.objectives.beta import Beta, steered, warmed_up


def test_warm_up_rises_in_a_line_and_stays() -> None:
    assert [warmed_up(0.2, step, 4) for step in range(6)] == pytest.approx(
        [0.05, 0.1, 0.15, 0.2, 0.2, 0.2]
    )
    assert warmed_up(0.2, 0, 0) == 0.2


def test_beta_rises_below_the_target_and_falls_above_it() -> None:
    assert steered(Beta(0.1), 0.0, 2.0, 0.1).value == pytest.approx(0.105)
    assert steered(Beta(0.1), 9.0, 2.0, 0.1).value == pytest.approx(0.095)
    assert steered(Beta(0.1, 4.0), 9.0, 2.0, 0.1).mean_gap == pytest.approx(0.9 * 4 + 0.1 * 9)
    assert steered(Beta(0.1, 2.0), 2.0, 2.0, 0.1).value == pytest.approx(0.1)
    assert steered(Beta(0.1, 1.0), None, 2.0, 0.1) == Beta(0.1, 1.0)


def test_beta_stays_within_a_factor_of_ten() -> None:
    low = high = Beta(0.1)
    for _ in range(200):
        low, high = steered(low, 50.0, 1.0, 0.1), steered(high, 0.0, 1.0, 0.1)
    assert (low.value, high.value) == pytest.approx((0.01, 1.0))


def test_steering_finds_the_weight_that_keeps_the_target() -> None:
    """A plant whose gap follows β slowly: gap → 20·β."""
    beta, gap = Beta(0.1), 2.0
    for _ in range(600):
        gap += 0.1 * (20 * beta.value - gap)
        beta = steered(beta, gap, 5.0, 0.1)
    assert gap == pytest.approx(5.0, rel=0.05)
    assert beta.value == pytest.approx(0.25, rel=0.05)
