"""Rows 20 to 27: where a NIfTI file says that its voxels lie."""

import gzip
import struct
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import ornt_transform
from pydicom.dataset import FileDataset

from ctscribe.scan.volume import CTVolume, Notes
from tests.catalogue.case import Build, Case
from tests.catalogue.nifti_bytes import packed_field
from tests.dicom import write_series
from tests.scans import CHEST, image_of

NAN = float("nan")


def placed(
    sform: np.ndarray | None, qform: np.ndarray | None = None, hu: np.ndarray = CHEST.hu
) -> Build:
    """The chest under these affines; without both codes are 0."""

    def build(folder: Path) -> Path:
        image = nib.Nifti1Image(hu, sform if sform is not None else qform)
        image.header.set_xyzt_units("mm")
        image.set_sform(sform, code=int(sform is not None))
        image.set_qform(qform, code=int(qform is not None))
        nib.save(image, folder / "scan.nii.gz")
        return folder / "scan.nii.gz"

    return build


def scaled(x: float, y: float, z: float) -> np.ndarray:
    """The chest's affine with other voxels."""
    return CHEST.affine @ np.diag([x, y, z, 1.0])


def leaning(degrees: float) -> np.ndarray:
    affine = CHEST.affine.copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(degrees))
    return affine


def within_slices() -> np.ndarray:
    affine = CHEST.affine.copy()
    affine[0, 1] = 0.4
    return affine


def in_unit(code: int, factor: float) -> Build:
    """The affine in another unit, under that unit's code or another's."""

    def build(folder: Path) -> Path:
        image = image_of(CTVolume(CHEST.hu, np.diag([factor] * 3 + [1]) @ CHEST.affine))
        image.header["xyzt_units"] = code
        (folder / "scan.nii").write_bytes(image.to_bytes())
        return folder / "scan.nii"

    return build


def oriented(axes: tuple[int, ...], signs: tuple[int, ...]) -> Build:
    """The same chest with its voxels in another order, sform and qform set."""

    def build(folder: Path) -> Path:
        to = np.array([*zip(axes, signs, strict=True)], dtype=float)
        image = image_of().as_reoriented(ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), to))
        image.set_qform(image.affine, code=1)
        image.set_sform(image.affine, code=1)
        nib.save(image, folder / "scan.nii.gz")
        return folder / "scan.nii.gz"

    return build


def shaped(*sizes: int) -> Build:
    """Dimensions that multiply to the chest's voxels, or fewer."""
    return packed_field(40, f"{len(sizes) + 1}h", len(sizes), *sizes)


def cut_to(num_slices: int) -> Build:
    return placed(CHEST.affine, hu=CHEST.hu[:, :, :num_slices])


def upright_by(degrees: float) -> Callable[[CTVolume, Notes], None]:
    """Set upright; the lungs' and the body's centres lie where the sheared grid had them."""

    def check(volume: CTVolume, notes: Notes) -> None:
        assert notes.details["tilt_degrees"] == degrees
        axes = volume.affine[:3, :3] / volume.spacing_mm
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        source = CTVolume(CHEST.hu, leaning(degrees))
        for z in (3, 12, 20):
            for low, high in ((-900, -800), (0, 80)):
                (found, wanted) = (centre_mm(one, z, low, high) for one in (volume, source))
                assert (np.abs(found - wanted) < 1.0).all(), "half a voxel"

    return check


def centre_mm(volume: CTVolume, z: int, low: float, high: float) -> np.ndarray:
    x, y = np.nonzero((volume.hu[:, :, z] > low) & (volume.hu[:, :, z] < high))
    place: np.ndarray = volume.affine @ [x.mean(), y.mean(), z, 1]
    return place[:3]


def tilted_gantry(folder: Path) -> Path:
    def edit(image: FileDataset, z: int) -> None:
        image.ImagePositionPatient[1] -= 5 * z * np.tan(np.radians(15))

    return write_series(folder / "series", edit)


def spaced(*mm: float) -> Callable[[CTVolume, Notes], None]:
    def check(volume: CTVolume, notes: Notes) -> None:
        np.testing.assert_allclose(volume.spacing_mm, mm, rtol=1e-5)

    return check


CASES = [
    Case(20, "spacing", placed(CHEST.affine, scaled(1, 1, 3)), "E_GEOMETRY_CONFLICT", "--prefer"),
    Case(20, "by 2 %", placed(CHEST.affine, scaled(1.02, 1, 1)), "E_GEOMETRY_CONFLICT", "disagree"),
    Case(20, "mirrored", placed(CHEST.affine, scaled(-1, 1, 1)), "E_GEOMETRY_CONFLICT", "disagree"),
    Case(
        20,
        "sform preferred",
        placed(CHEST.affine, scaled(1, 1, 2)),
        "W_PIXDIM",
        options={"prefer": "sform"},
    ),
    Case(20, "qform preferred", placed(scaled(1, 1, 2), CHEST.affine), options={"prefer": "qform"}),
    Case(20, "sform alone", placed(CHEST.affine)),
    Case(20, "qform alone", placed(None, CHEST.affine)),
    Case(21, "15 degrees", placed(leaning(15)), "W_TILT", check=upright_by(15)),
    Case(21, "15 degrees, DICOM", tilted_gantry, "W_TILT", check=upright_by(15)),
    Case(21, "beyond the limit", placed(leaning(35)), "E_SHEAR", "they are 35.0 degrees off"),
    Case(
        21,
        "own limit",
        placed(leaning(15)),
        "E_SHEAR",
        "at most 10 degrees off",
        options={"max_tilt_degrees": 10.0},
    ),
    Case(21, "sheared slices", placed(within_slices()), "E_SHEAR", "rows and columns"),
    Case(22, "NaN", packed_field(280, "f", NAN), "E_AFFINE", "finite, independent axes"),
    Case(22, "flat", packed_field(312, "4f", 0, 0, 0, 0), "E_AFFINE", "independent axes"),
    Case(22, "two axes alike", packed_field(280, "8f", 2, 0, 0, 0, 2, 0, 0, 0), "E_AFFINE", "axes"),
    Case(22, "far away", packed_field(292, "f", 1e9), "E_AFFINE", "finite"),
    Case(22, "impossible quaternion", packed_field(256, "f", 5.0), "E_AFFINE", "a rotation"),
    Case(22, "codes 0", packed_field(252, "2h", 0, 0), "E_NO_GEOMETRY", "neither sform nor qform"),
    *(
        Case(22, f"pixdim {value}", packed_field(88, "f", value), "E_SPACING", "positive size")
        for value in (0.0, -5.0, NAN)
    ),
    Case(
        22,
        "pixdim 0, sform preferred",
        packed_field(88, "f", 0.0),
        "W_PIXDIM",
        options={"prefer": "sform"},
    ),
    Case(22, "another pixdim", lambda folder: placed_with_pixdim(folder, 7.0), "W_PIXDIM"),
    Case(23, "metres", in_unit(1, 1e-3), "W_UNITS"),
    Case(23, "micrometres", in_unit(3, 1e3), "W_UNITS"),
    Case(23, "none", in_unit(0, 1.0), "W_UNITS"),
    Case(23, "mm called metres", in_unit(1, 1.0), "W_UNITS"),
    Case(23, "mm called micrometres", in_unit(3, 1.0), "W_UNITS"),
    Case(23, "centimetres", in_unit(0, 1e-1 / 5), "E_SPACING", "between 0.05 and 20 mm"),
    Case(
        24,
        "fine and far apart",
        placed(scaled(0.075, 0.1, 2.4)),
        "W_SPACING W_FIELD",
        check=spaced(0.15, 0.2, 12.0),
    ),
    Case(24, "coarse", placed(scaled(2, 2, 1)), "W_SPACING", check=spaced(4, 4, 5)),
    Case(24, "narrow", placed(scaled(0.4, 0.4, 1)), "W_FIELD", check=spaced(0.8, 0.8, 5)),
    Case(24, "impossible", placed(scaled(1, 1, 6)), "E_SPACING", "has 2 x 2 x 30 mm"),
    *(
        Case(25, f"{axes} {signs}", oriented(axes, signs))
        for axes in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ),
    Case(26, "two dimensions", shaped(160, 3072), "E_TOO_FEW_SLICES", "160 x 3072 x 1"),
    Case(26, "one slice", shaped(160, 3072, 1), "E_TOO_FEW_SLICES", "give the whole series"),
    Case(26, "19 slices", cut_to(19), "E_TOO_FEW_SLICES", "but has 19"),
    Case(
        26,
        "20 slices",
        cut_to(20),
        check=lambda volume, notes: np.testing.assert_array_equal(volume.hu, CHEST.hu[:, :, :20]),
    ),
    Case(27, "T = 1", shaped(160, 128, 24, 1), "W_4D"),
    Case(27, "T = 2", shaped(160, 128, 12, 2), "E_4D", "holds 2 of them"),
    Case(27, "fifth", shaped(160, 128, 6, 1, 4), "E_4D", "holds 4 of them"),
]


def placed_with_pixdim(folder: Path, z_mm: float) -> Path:
    """No qform, and a pixdim that contradicts the sform."""
    content = bytearray(image_of().to_bytes())
    struct.pack_into("<h", content, 252, 0)
    struct.pack_into("<f", content, 88, z_mm)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(content)))
    return folder / "scan.nii.gz"
