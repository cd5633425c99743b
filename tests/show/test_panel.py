import numpy as np
import pytest

from ctscribe.show.page import slice_panel

DISPLAY = {"lung −600/1500": np.zeros((2, 20, 40), dtype=np.uint8)}


def test_sides_are_in_millimetres_and_slices_keep_their_place() -> None:
    panel = slice_panel("slices", DISPLAY, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    assert (panel.width_mm, panel.height_mm) == (20.0, 40.0)
    assert [(s.number, s.slice_index, s.position_mm) for s in panel.slices] == [
        (1, 87, -142.5),
        (2, 51, 12.0),
    ]
    assert [title for title, _ in panel.slices[0].planes] == ["lung −600/1500"]


def test_a_slice_never_gets_another_ones_position() -> None:
    with pytest.raises(ValueError, match="zip"):
        slice_panel("slices", DISPLAY, (87, 51), (-142.5,), (0.5, 2.0))
