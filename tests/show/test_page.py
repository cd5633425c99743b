"""How a page is rendered, which characters it shows, and how its slices are drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.page import (
    READING_WINDOWS,
    DrawnSlices,
    draw_slices,
    png_uri,
    printable,
    render,
    signed_mm,
    slabs_title,
    window_title,
)


def test_a_forgotten_value_is_an_error_not_a_gap() -> None:
    with pytest.raises(UndefinedError, match="tables"):
        render("scoreboard.html", title="t", facts=())


def test_a_png_becomes_a_data_uri() -> None:
    assert png_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("6 × 4 mm, β ≥ 0.1\n\tnext", "6 × 4 mm, β ≥ 0.1\n\tnext"),
        ("a\x00\x1b\x7f\x9b", "a⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+009B⟩"),
        ("\u202eevil\u2066\u200f\u061c", "⟨U+202E⟩evil⟨U+2066⟩⟨U+200F⟩⟨U+061C⟩"),
        ("\ufeffa\u200bb\ud800", "⟨U+FEFF⟩a⟨U+200B⟩b⟨U+D800⟩"),
    ],
)
def test_only_controlling_and_invisible_characters_are_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_the_result_is_stable_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    shown.encode()


def test_coordinates_have_a_true_minus_sign() -> None:
    assert (signed_mm(-142.46), signed_mm(3.0)) == ("−142.5", "3.0")


IMAGES = {"lung −600/1500": np.zeros((2, 20, 40), dtype=np.uint8)}


def test_sides_are_in_millimetres_and_slices_keep_their_place() -> None:
    slices = DrawnSlices(IMAGES, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    assert slices.size_mm == (20.0, 40.0)
    assert slices.places == [(87, -142.5), (51, 12.0)]
    with pytest.raises(ValueError, match="zip"):
        _ = DrawnSlices(IMAGES, (87, 51), (-142.5,), (0.5, 2.0)).places


def test_slabs_are_named_with_their_thickness() -> None:
    slices = DrawnSlices(IMAGES, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    assert (slices.counted, slices.name(2)) == ("2 axial slices", "slice 51")
    slabs = DrawnSlices(IMAGES, (87, 51), (-142.5, 12.0), (0.5, 2.0), (14.7, 14.7))
    assert slabs.counted == "2 axial slices with slabs of 15 mm"
    assert slabs.name(2) == "slice 51 in a slab of 15 mm"
    assert slabs_title((12.0, 13.0, 12.1)) == "slabs of 12 to 13 mm"


def test_slices_are_drawn_in_named_windows_with_the_right_on_the_left() -> None:
    hu = np.full((28, 28, 4), -1000, dtype=np.int16)
    hu[-1, -1, 2] = 40  # rightmost, most anterior voxel
    drawn = draw_slices(CTVolume(hu, np.diag([2.0, 2.0, 3.0, 1.0])), (2, 0))
    assert list(drawn) == ["lung −600/1500", "soft tissue 40/400"]
    assert [window_title(window) for window in READING_WINDOWS] == list(drawn)
    lung, soft_tissue = drawn.values()
    assert lung.shape == soft_tissue.shape == (2, 28, 28)
    assert soft_tissue[0, 0, 0] == 128
    assert np.count_nonzero(soft_tissue) == 1
    assert lung[0, 0, 0] == round((40 + 1350) / 1500 * 255)
    assert lung[1, 0, 0] == round((-1000 + 1350) / 1500 * 255)


def test_a_real_tumour_is_drawn_where_radiologists_boxed_it(shared_data: Path) -> None:
    # A tumour of the left upper lobe (Lung-PET-CT-Dx A0001); boxes are in pixels of the DICOM
    # images, 0.8418 mm wide, numbered from the most caudal slice, 5 mm apart.
    boxes = json.loads((shared_data / "ct/lung_dx_a0001_boxes.json").read_text())
    ((_, left, top, right, bottom),) = boxes["Lung_Dx-A0001_L"]["45"]
    series = shared_data / "ct/lung_dx_a0001_series"
    prepared = prepare_volume(series, VolumeConfig(), SlicesConfig(num_slices=100), study="a0001")
    volume = prepared.shown
    z = 45 * 5 / volume.spacing_mm[2]
    number = int(np.argmin([abs(index - z) for index in prepared.slice_indices]))
    assert abs(prepared.slice_indices[number] - z) < 5 / volume.spacing_mm[2] / 2
    image = draw_slices(volume, (number,))["soft tissue 40/400"][0]
    pad = (image.shape[1] - volume.shape_xyz[0]) // 2
    scale = 0.841796875 / volume.spacing_mm[0]
    row, column = (int((a + b) / 2 * scale) + pad for a, b in ((top, bottom), (left, right)))
    tumour = image[row - 12 : row + 12, column - 12 : column + 12]
    mirrored = image[row - 12 : row + 12, -column - 12 : -column + 12]
    assert 90 < np.median(tumour) < 170  # soft tissue, about 0 to 90 HU
    assert np.median(mirrored) == 0  # the other lung is air
