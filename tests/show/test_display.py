import json
from pathlib import Path

import numpy as np

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.page import READING_WINDOWS, draw_slices, window_title


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
