"""Rows 12 to 19: what a NIfTI file stores, and what it has to come to in Hounsfield units."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.volume import CTVolume, Notes
from tests.catalogue.case import Build, Case
from tests.catalogue.nifti_bytes import packed_field
from tests.scans import CHEST, image_of

HU = CHEST.hu
CORNER = (slice(0, 4), slice(0, 4), slice(0, 4))
"""Of air, where a few voxels are replaced."""


def store(values: np.ndarray, dtype: str = "", affine: np.ndarray | None = CHEST.affine) -> Build:
    """A file of values, as they are, in a number type; a blank header without an affine."""

    def build(folder: Path) -> Path:
        kind = np.dtype(dtype or values.dtype)
        header = nib.Nifti1Header(endianness=">" if kind.byteorder == ">" else "<")
        header.set_xyzt_units("mm")
        stored = values.astype(kind)
        image = nib.Nifti1Image(stored, affine, header, dtype=stored.dtype.type)
        path = folder / "scan.nii.gz"
        nib.save(image, path)
        return path

    return build


def scaled(values: np.ndarray, slope: float, intercept: float) -> Build:
    """A file whose header says how to scale its int16."""

    def build(folder: Path) -> Path:
        image = image_of(CTVolume(values.astype(np.int16), CHEST.affine))
        content = bytearray(image.to_bytes())
        content[112:120] = np.array([slope, intercept], "<f4").tobytes()
        path = folder / "scan.nii"
        path.write_bytes(bytes(content))
        return path

    return build


def with_corner(value: float, dtype: str = "i2") -> np.ndarray:
    hu = HU.astype(dtype)
    hu[CORNER] = value
    return hu


def with_holes(count: int, value: float = np.nan) -> np.ndarray:
    hu = HU.astype(np.float32)
    hu.reshape(-1, order="A")[:count] = value
    return hu


def row(slope: float | None, intercept: float | None) -> dict[str, object]:
    """CT-RATE's metadata of the chest, for blank headers as well."""
    lps_mm = (-168.0, -134.0, 700.0)
    axes = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    scale = float_of(slope), float_of(intercept)
    metadata = VolumeMetadata((2.0, 2.0, 5.0), *scale, lps_mm, axes, "", None)
    return {"metadata": metadata}


def float_of(number: float | None) -> float | None:
    return None if number is None else float(number)


def counted(code: str, count: int, value: int) -> Callable[[CTVolume, Notes], None]:
    """The corner has a value, as many voxels were changed, and all else is as it was."""

    def check(volume: CTVolume, notes: Notes) -> None:
        assert notes.details["changed_voxels"][code] == count
        expected = HU.copy()
        expected[CORNER] = value
        np.testing.assert_array_equal(volume.hu, expected)

    return check


def same_but_holes(volume: CTVolume, notes: Notes) -> None:
    assert notes.details["changed_voxels"] == {"W_NAN": 5}
    holes = np.isnan(with_holes(5))
    assert (volume.hu[holes] == -1024).all()
    np.testing.assert_array_equal(volume.hu[~holes], HU[~holes])


def halves(volume: CTVolume, notes: Notes) -> None:
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu, np.maximum(HU + 0.5, -1024))


def as_first_release(raw: np.ndarray) -> Build:
    """Raw values, axes left, posterior, superior, under a blank header."""
    return store(np.ascontiguousarray(raw[::-1, ::-1]), affine=None)


def repeated(num_slices: int) -> np.ndarray:
    hu = HU.copy()
    hu[:, :, 10 : 10 + num_slices] = hu[:, :, 10:11]
    return hu


def is_repeated(volume: CTVolume, notes: Notes) -> None:
    np.testing.assert_array_equal(volume.hu, repeated(5))


NOTHING = lambda volume, notes: None  # noqa: E731 - the notes are all that is asked
WIDE = HU.astype(np.int32)
CASES = [
    *(
        Case(12, dtype, store(HU, dtype), check=None)
        for dtype in ("i2", ">i2", "i4", ">i4", "i8", "f4", ">f4", "f8", ">f8")
    ),
    Case(12, "uint16", store(WIDE + 1024, "u2"), "W_RELEASE", options=row(1, -1024)),
    Case(12, "float with halves", store(HU + np.float32(0.5)), check=halves),
    Case(
        12,
        "int32 beyond 16 bits",
        store(with_corner(90_000, "i4")),
        "W_CLIPPED W_METAL",
        check=counted("W_CLIPPED", 64, 3071),
    ),
    Case(
        12,
        "float beyond 16 bits",
        store(with_corner(-1e9, "f4")),
        "W_CLIPPED W_PADDING",
        check=counted("W_CLIPPED", 64, -1024),
    ),
    Case(13, "few NaN", store(with_holes(5)), "W_NAN", check=same_but_holes),
    Case(13, "few infinite", store(with_holes(5, np.inf)), "W_NAN", check=same_but_holes),
    Case(13, "many", store(with_holes(2000)), "E_NAN", "2000 of 491520 have none"),
    Case(13, "all", store(with_holes(HU.size)), "E_NAN", "491520 of 491520"),
    Case(14, "constant", store(np.full_like(HU, -1000)), "E_NO_CONTENT", "the value -1000"),
    Case(14, "zeros", store(np.zeros_like(HU)), "E_NO_CONTENT", "the value 0"),
    Case(14, "five equal slices", store(repeated(5)), "W_REPEATED_SLICES", check=is_repeated),
    Case(14, "four equal slices", store(repeated(4)), check=NOTHING),
    Case(15, "slope 0", packed_field(112, "2f", 0.0, -1024.0), "W_SLOPE"),
    Case(15, "slope NaN", packed_field(112, "2f", float("nan"), 0.0), "W_SLOPE"),
    Case(15, "slope infinite", packed_field(112, "2f", float("inf"), 0.0), "W_SLOPE"),
    Case(15, "intercept NaN", packed_field(112, "2f", 1.0, float("nan")), "W_SLOPE"),
    Case(16, "second release", store(HU), options=row(1, -1024)),
    Case(16, "second release, Siemens", store(HU), options=row(1, -8192)),
    Case(16, "first release", as_first_release(HU + np.int16(1024)), options=row(1, -1024)),
    Case(
        16, "first release, Siemens", as_first_release(HU + np.int16(8192)), options=row(1, -8192)
    ),
    Case(
        16, "raw under a true header", store(WIDE + 1024, "i2"), "W_RELEASE", options=row(1, -1024)
    ),
    Case(16, "HU under a blank header", as_first_release(HU), "W_RELEASE", options=row(1, -1024)),
    Case(
        16,
        "plausible as both",
        store(HU),
        "E_HU_AMBIGUOUS",
        "either raw or in",
        options=row(1, -20),
    ),
    Case(
        16,
        "HU said to be raw",
        store(HU),
        "E_NOT_HU",
        "after slope and intercept it does not",
        options={**row(1, -1024), "intensity": "raw"},
    ),
    Case(16, "raw without a slope", store(HU + np.int16(1024)), "E_NOT_HU", "before rescaling"),
    Case(
        16,
        "raw asked, no slope",
        store(HU),
        "E_NO_RESCALE",
        "slope and intercept",
        options={**row(None, None), "intensity": "raw"},
    ),
    Case(17, "0 to 4095", store(HU + np.int16(1024)), "E_NOT_HU", "as before rescaling"),
    Case(17, "0 to 255", store(np.clip((HU + 1000.0) / 8, 0, 255), "u1"), "E_NOT_HU", "a picture"),
    Case(17, "0 to 1", store(np.clip((HU + 1000.0) / 2000, 0, 1), "f4"), "E_NOT_HU", "[-1, 1]"),
    Case(17, "-1 to 1", store(np.clip(HU / 1000.0, -1, 1), "f4"), "E_NOT_HU", "normalisation"),
    *(
        Case(
            18,
            f"padding {value}",
            store(with_corner(value)),
            "W_PADDING",
            check=counted("W_PADDING", 64, -1024),
        )
        for value in (-2000, -2048, -3024, -8192)
    ),
    Case(18, "metal", store(with_corner(9000)), "W_METAL", check=counted("W_METAL", 64, 3071)),
    Case(
        19,
        "slope 2",
        scaled(with_corner(40_000, "i4") // 2, 2, 0),
        "W_CLIPPED W_METAL",
        check=lambda volume, notes: np.testing.assert_array_equal(volume.hu[CORNER], 3071),
    ),
    Case(
        19,
        "slope 2 of the metadata",
        as_first_release((with_corner(60_000, "i4") // 2 + 512).astype("i2")),
        "W_METAL",
        options=row(2, -1024),
        check=lambda volume, notes: np.testing.assert_array_equal(volume.hu[CORNER], 3071),
    ),
]
