import numpy as np
import pytest

from ctscribe.phantom.scanner import Kernel, add_noise


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
