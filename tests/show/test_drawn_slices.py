import numpy as np
import pytest

from ctscribe.show.page import DrawnSlices

IMAGES = {"lung −600/1500": np.zeros((2, 20, 40), dtype=np.uint8)}


def test_sides_are_in_millimetres_and_slices_keep_their_place() -> None:
    slices = DrawnSlices(IMAGES, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    assert slices.size_mm == (20.0, 40.0)
    assert slices.places == [(87, -142.5), (51, 12.0)]


def test_a_slice_never_gets_another_ones_position() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = DrawnSlices(IMAGES, (87, 51), (-142.5,), (0.5, 2.0)).places
