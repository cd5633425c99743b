import ast

import numpy as np
import pytest

from ctscribe.base.recipe import PhantomConfig
from ctscribe.data.ct_rate import METADATA_COLUMNS
from ctscribe.phantom.body import Body
from ctscribe.phantom.scanner import (
    SCANNERS,
    Kernel,
    Reconstruction,
    add_noise,
    draw_exposure,
    draw_reconstruction,
    expose,
    metadata_row,
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


def noise(
    kernel: Kernel, seed: int = 0, shape: tuple[int, int, int] = (20, 100, 120)
) -> np.ndarray:
    hu = np.zeros(shape, np.float32)
    sigma = np.full(shape[0], 12.0, np.float32)
    add_noise(hu, np.random.default_rng(seed), sigma_hu=sigma, kernel=kernel, blur_px=1.0)
    return hu


@pytest.mark.parametrize("kernel", ["soft", "sharp"])
def test_noise_has_the_asked_deviation_and_no_bias(kernel: Kernel) -> None:
    values = noise(kernel)
    assert values.std() == pytest.approx(12, rel=0.05)
    assert abs(values.mean()) < 0.5


def test_soft_noise_is_smoother_than_sharp_noise() -> None:
    def neighbours(kernel: Kernel) -> float:
        values = noise(kernel)
        return float(np.corrcoef(values[:, :, 1:].ravel(), values[:, :, :-1].ravel())[0, 1])

    assert neighbours("soft") > neighbours("sharp") + 0.05


def test_noise_is_reproducible_and_differs_between_seeds() -> None:
    np.testing.assert_array_equal(noise("soft", 3), noise("soft", 3))
    assert np.abs(noise("soft", 3) - noise("soft", 4)).max() > 1


def test_volumes_wider_than_the_tile_are_filled() -> None:
    values = noise("sharp", shape=(2, 300, 600))
    assert values.std(axis=(1, 2)) == pytest.approx(12, rel=0.1)


def test_metadata_has_every_column_filled_and_agrees_with_the_grid() -> None:
    rng = np.random.default_rng(0)
    exposure = draw_exposure(rng, Body(age_years=36))
    reconstruction = draw_reconstruction(
        rng, exposure, PhantomConfig(spacing_mm=(2.8, 2.8, 5.0), matrix_px=128), "soft"
    )
    row = metadata_row("train_1_a_1.nii.gz", Body(age_years=36), exposure, reconstruction)
    assert tuple(row) == METADATA_COLUMNS
    assert all(row.values())
    assert row["PatientAge"] == "036Y"
    grid = reconstruction.grid
    assert tuple(ast.literal_eval(row["XYSpacing"])) == grid.spacing_mm[:2]
    x, y, z = ast.literal_eval(row["ImagePositionPatient"])
    np.testing.assert_allclose((-x, -y, z), grid.affine[:3, 3], atol=1e-3)
