"""Nodules have the sizes and the number that were asked for."""

import numpy as np
import pytest

from ctscribe.phantom.body import Body
from ctscribe.phantom.drawing import Scene
from ctscribe.phantom.lung_findings import nodules
from ctscribe.phantom.lungs import grow


@pytest.mark.parametrize(("median_mm", "least_mm"), [(3.5, 2), (4.5, 4), (9.0, 4)])
def test_nodules_follow_their_log_normal(median_mm: float, least_mm: float) -> None:
    body = Body(seed=1)
    scene = Scene(body, grow(body), nodule_mm=median_mm)
    drawn = [nodules(np.random.default_rng(seed), scene) for seed in range(300)]
    counts = [len(each) for each in drawn]
    sizes = np.array([nodule.size_mm for each in drawn for nodule in each])
    assert set(counts) <= set(range(1, 7))
    assert sizes.min() == least_mm
    assert sizes.max() <= 28
    assert np.median(sizes) == pytest.approx(median_mm, abs=0.6)
    upper = np.log(np.quantile(sizes, 0.84) / median_mm)
    assert upper == pytest.approx(0.5, abs=0.12)  # one standard deviation of the logarithm


def test_small_nodules_are_enlarged_after_they_are_drawn() -> None:
    body = Body(seed=1)
    trees = grow(body)
    plain, twice = (
        nodules(np.random.default_rng(3), Scene(body, trees, scale, 4.5)) for scale in (1.0, 2.0)
    )
    assert [2 * nodule.size_mm for nodule in plain] == [nodule.size_mm for nodule in twice]
