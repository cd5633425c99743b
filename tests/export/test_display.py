import numpy as np

from ctscribe.export.display import READING_WINDOWS, draw_slices, window_title
from ctscribe.volume.ct import CTVolume


def test_slices_are_drawn_in_named_windows_with_the_right_on_the_left() -> None:
    hu = np.full((28, 28, 4), -1000, dtype=np.int16)
    hu[-1, -1, 2] = 40  # rightmost, most anterior voxel
    drawn = draw_slices(CTVolume(hu, np.diag([2.0, 2.0, 3.0, 1.0])), (2, 0))
    assert list(drawn) == ["lung −600/1500", "soft tissue 40/400"]
    lung, soft_tissue = drawn.values()
    assert lung.shape == soft_tissue.shape == (2, 28, 28)
    assert soft_tissue[0, 0, 0] == 128
    assert np.count_nonzero(soft_tissue) == 1
    assert lung[0, 0, 0] == round((40 + 1350) / 1500 * 255)
    assert lung[1, 0, 0] == round((-1000 + 1350) / 1500 * 255)


def test_titles_give_centre_and_width() -> None:
    assert [window_title(window) for window in READING_WINDOWS] == [
        "lung −600/1500",
        "soft tissue 40/400",
    ]
