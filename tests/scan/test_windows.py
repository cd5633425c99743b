import numpy as np
import pytest

from ctscribe.scan.frames import WINDOWS, Window, apply_window


def test_published_windows() -> None:
    edges = [
        (window.center_hu - window.width_hu / 2, window.center_hu + window.width_hu / 2)
        for window in WINDOWS["three"]
    ]
    assert edges == [(-1000, 1000), (-160, 240), (-1000, -400)]
    for window, edge in zip(WINDOWS["three"], edges, strict=True):
        assert apply_window(np.array(edge), window).tolist() == [0, 255]
    assert WINDOWS["single"] == WINDOWS["three"][:1]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_linear_rounded_and_clipped(dtype: type) -> None:
    hu: np.ndarray = np.array([-3000, -1000, -992, -500, 0, 500, 1000, 3000], dtype=dtype)
    grey = apply_window(hu, Window("wide", 0.0, 2000.0))
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 1, 64, 128, 191, 255, 255]
