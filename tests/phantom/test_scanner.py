import numpy as np
import pytest

from ctscribe.base.recipe import PhantomConfig
from ctscribe.phantom.body import Body
from ctscribe.phantom.scanner import (
    SCANNERS,
    Kernel,
    Reconstruction,
    draw_exposure,
    draw_reconstruction,
    expose,
)


def reconstruction_of(kernel: Kernel = "soft", seed: int = 0) -> Reconstruction:
    rng = np.random.default_rng(seed)
    exposure = draw_exposure(rng, Body())
    return draw_reconstruction(
        rng, exposure, PhantomConfig(spacing_mm=(2.8, 2.8, 5.0), matrix_px=128), kernel
    )


def test_scanners_share_all_scans() -> None:
    assert sum(scanner.share for scanner in SCANNERS) == pytest.approx(1)
    assert {scanner.intercept for scanner in SCANNERS} == {-1024, -8192}


@pytest.mark.parametrize("seed", range(5))
def test_the_grid_covers_the_lungs_near_the_nominal_spacing(seed: int) -> None:
    grid = reconstruction_of(seed=seed).grid
    assert grid.levels[0] < -175
    assert grid.levels[-1] > 108
    np.testing.assert_allclose(grid.spacing_mm, (2.8, 2.8, 5.0), rtol=0.12)
    assert 50 <= grid.shape_zyx[0] <= 76


def test_sharp_kernels_are_noisier_and_padding_lies_outside_the_circle() -> None:
    deviations = []
    kernels: tuple[Kernel, Kernel] = ("soft", "sharp")
    for kernel in kernels:
        rng = np.random.default_rng(0)
        exposure = draw_exposure(rng, Body())
        reconstruction = reconstruction_of(kernel)
        hu = np.full(reconstruction.grid.shape_zyx, 40, np.float32)
        stored = expose(rng, hu, exposure, reconstruction)
        assert (stored[:, 0, 0] == exposure.scanner.padding_hu).all()
        assert stored.dtype == np.int16
        deviations.append(stored[10:20, 50:70, 50:70].std())
    assert deviations[1] > 1.5 * deviations[0]
