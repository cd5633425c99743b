from collections.abc import Callable

import numpy as np
import pytest

from ctscribe.export.crops import draw_frames, place_crops
from ctscribe.export.display import READING_WINDOWS
from ctscribe.second_look.choose import Crop
from ctscribe.second_look.cut import ShownFrames, first_look, with_crops
from ctscribe.slices.show import PreparedVolume, show_lungs
from ctscribe.volume.ct import CTVolume

CROPS = (Crop(0, 3, 20), Crop(1, 17, 9), Crop(1, 20, 27))


@pytest.fixture
def chest(make_chest: Callable[..., CTVolume]) -> tuple[PreparedVolume, ShownFrames]:
    """Frames of 28 × 56 px from slices of 56 × 84 px."""
    prepared = show_lungs(
        make_chest(),
        spacing_mm=(6.0, 6.0, 8.0),
        num_slices=4,
        windows=READING_WINDOWS[:1],
        frame_size_px=(56, 84),
        token_budget=4,
        fine=True,
    )
    assert prepared.fine is not None
    return prepared, with_crops(first_look(prepared), prepared.fine, CROPS)


def test_a_crop_is_drawn_as_the_model_saw_it(
    chest: tuple[PreparedVolume, ShownFrames],
) -> None:
    # the first reading window is the model's here
    drawn = draw_frames(*chest)
    assert {len(images) for images in drawn.values()} == {10}
    np.testing.assert_array_equal(next(iter(drawn.values())), chest[1].frames[..., 0])


def test_a_crop_lies_where_its_own_matrix_puts_it(
    chest: tuple[PreparedVolume, ShownFrames],
) -> None:
    prepared, shown = chest
    height, width = shown.frames.shape[1:3]
    placed = place_crops(prepared, shown)
    assert [crop.number for crop in placed] == [1, 2, 3, 4, 3, 4]
    across, down, _ = prepared.shown.spacing_mm
    for number, crop in enumerate(placed):
        assert crop.pixel_spacing_mm == pytest.approx((6.0, 6.0), rel=0.02)
        # through the box, and through the crop's matrix, its centre is the same point
        left, top, box_width, box_height = crop.box_mm
        z = shown.slice_indices[crop.number - 1]
        middle = ((left + box_width / 2) / across - 0.5, (top + box_height / 2) / down - 0.5, z, 1)
        np.testing.assert_allclose((shown.frame_to_ras @ middle)[:3], crop.center_mm, atol=1e-6)
        own = (*((width - 1) / 2, (height - 1) / 2), z, 1)
        matrix = shown.crop_to_ras[number // 2]
        np.testing.assert_allclose((matrix @ own)[:3], crop.center_mm, atol=1e-9)
        assert crop.center_mm[2] == pytest.approx(shown.position_mm[4 + number])


def test_one_look_alone_has_no_crops(chest: tuple[PreparedVolume, ShownFrames]) -> None:
    first = first_look(chest[0])
    assert place_crops(chest[0], first) == ()
    assert {len(images) for images in draw_frames(chest[0], first).values()} == {4}
