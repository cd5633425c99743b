"""What bits a slice stores its values in, and what of them its header states to be no value."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset

from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume, Notes
from tests.dicom import Edit, as_rle, bytes_of, enhanced_of, write_series
from tests.refusals import refusal
from tests.scan.dicom_slices import STUDY
from tests.scans import CHEST

CORNER = (slice(0, 3), slice(0, 3))


def read(path: Path) -> tuple[CTVolume, Notes]:
    return read_volume(path, study=STUDY)


def words_of(image: FileDataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, "<u2").reshape(-1, image.Columns).astype(np.int32)


def with_bits(bits: int, *, signed: bool = False, extended: bool = True) -> Edit:
    """The same HU in other bits; signed ones with or without their sign in the bits above."""

    def edit(image: FileDataset, z: int) -> None:
        values = words_of(image) - (1024 if signed else 0)
        image.BitsStored, image.HighBit = bits, bits - 1
        image.PixelRepresentation = int(signed)
        image.RescaleIntercept = 0 if signed else -1024
        kept = 0xFFFF if extended else (1 << bits) - 1
        image.PixelData = (values & kept).astype("<u2").tobytes()

    return edit


def then(*edits: Edit) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        for one in edits:
            one(image, z)

    return edit


def padded(value: int, *, stated: int | None = None, limit: int | None = None) -> Edit:
    """A corner outside the scan, and what the header says of it."""

    def edit(image: FileDataset, z: int) -> None:
        words = words_of(image)
        words[-3:, -3:] = value & 0xFFFF
        image.PixelData = words.astype("<u2").tobytes()
        kind = "SS" if image.PixelRepresentation and (stated or 0) < 0 else "US"
        image.add_new("PixelPaddingValue", kind, value if stated is None else stated)
        if limit is not None:
            image.add_new("PixelPaddingRangeLimit", kind, limit)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        then(with_bits(16), padded(63_536)),
        then(with_bits(16), padded(5_000)),
        then(with_bits(16), padded(65_535)),
        then(with_bits(16), padded(64_000, stated=63_536, limit=65_535)),
        then(with_bits(16), padded(64_000, stated=65_535, limit=63_536)),
        then(with_bits(16, signed=True), padded(32_767)),
        then(with_bits(16, signed=True), padded(4_000)),
        then(with_bits(16, signed=True), padded(20_000, stated=15_000, limit=30_000)),
        then(with_bits(16, signed=True), padded(-2_000, stated=63_536)),
        then(with_bits(12, signed=True, extended=False), padded(0x830, stated=-2_000)),
        then(with_bits(12, signed=True, extended=False), padded(0x830, stated=0x830)),
        then(with_bits(12), padded(63_536)),
    ],
)
def test_stated_padding_is_air(tmp_path: Path, edit: Edit) -> None:
    volume, notes = read(write_series(tmp_path / "a", edit))
    assert (volume.hu[CORNER] == -1024).all()
    rest = np.ones(CHEST.hu.shape, dtype=bool)
    rest[CORNER] = False
    np.testing.assert_array_equal(volume.hu[rest], CHEST.hu[rest])
    assert notes.codes == {"W_PADDING"}


def test_padding_of_an_enhanced_file_is_air(tmp_path: Path) -> None:
    image = enhanced_of(CHEST)
    image.BitsStored, image.HighBit = 16, 15
    words = np.frombuffer(image.PixelData, "<u2").reshape(24, image.Rows, image.Columns).copy()
    words[:, -3:, -3:] = 63_536
    image.PixelData = words.tobytes()
    image.add_new("PixelPaddingValue", "US", 63_536)
    (tmp_path / "one.dcm").write_bytes(bytes_of(image))
    volume, notes = read(tmp_path / "one.dcm")
    assert (volume.hu[CORNER] == -1024).all()
    assert notes.codes == {"W_PADDING"}


@pytest.mark.parametrize("hu", [0, 40, 2000])
def test_stated_padding_that_tissue_has_stays(tmp_path: Path, hu: int) -> None:
    """Many headers state 0 although it is water."""
    edit = then(with_bits(16, signed=True), padded(hu))
    volume, notes = read(write_series(tmp_path / "a", edit))
    assert (volume.hu[CORNER] == hu).all()
    assert notes.codes == set()


def test_metal_that_is_no_padding_stays_metal(tmp_path: Path) -> None:
    edit = then(with_bits(16), padded(20_000, stated=63_536))
    volume, notes = read(write_series(tmp_path / "a", edit))
    assert (volume.hu[CORNER] == 3071).all()
    assert notes.codes == {"W_METAL"}


@pytest.mark.parametrize("compress", [None, as_rle])
def test_signed_values_without_sign_extension(tmp_path: Path, compress: Edit | None) -> None:
    edit = with_bits(12, signed=True, extended=False)
    volume, notes = read(
        write_series(tmp_path / "a", then(edit, *([compress] if compress else [])))
    )
    np.testing.assert_array_equal(volume.hu, CHEST.hu)
    assert notes.codes == set()


def test_unsigned_bone_called_signed_is_refused(tmp_path: Path) -> None:
    """Its highest bit is no sign: taken as one, bone would be below air."""

    def edit(image: FileDataset, z: int) -> None:
        words = words_of(image)
        words[40:50, 40:50] = 2300 + np.arange(10)
        image.PixelData, image.PixelRepresentation = words.astype("<u2").tobytes(), 1

    with refusal("E_BITS", "12 bits"):
        read(write_series(tmp_path / "a", edit))


def overlaid(bit: int, group: int = 0x6000) -> Edit:
    """A ring of an overlay in a bit of its own, as its group says."""

    def edit(image: FileDataset, z: int) -> None:
        words = words_of(image)
        words[10:12] ^= 1 << bit
        image.PixelData = (words & 0xFFFF).astype("<u2").tobytes()
        image.add_new((group, 0x0010), "US", image.Rows)
        image.add_new((group, 0x0011), "US", image.Columns)
        image.add_new((group, 0x0100), "US", 16)
        image.add_new((group, 0x0102), "US", bit)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        overlaid(12),
        overlaid(15),
        overlaid(13, 0x601E),
        then(overlaid(12), overlaid(14, 0x6002)),
        then(with_bits(12, signed=True), overlaid(12)),
        then(with_bits(12, signed=True, extended=False), overlaid(15)),
    ],
)
def test_overlays_in_spare_bits_are_masked_off(tmp_path: Path, edit: Edit) -> None:
    volume, notes = read(write_series(tmp_path / "a", edit))
    np.testing.assert_array_equal(volume.hu, CHEST.hu)
    assert notes.codes == set()


@pytest.mark.parametrize("declared", [False, True])
def test_spare_bits_that_nothing_explains_are_refused(tmp_path: Path, declared: bool) -> None:
    """An overlay that has data of its own lies in no bit of the values."""

    def edit(image: FileDataset, z: int) -> None:
        overlaid(12)(image, z)
        if declared:
            image.add_new((0x6000, 0x3000), "OW", bytes(2560))
        else:
            del image[0x6000, 0x0102]

    with refusal("E_BITS", "12 bits"):
        read(write_series(tmp_path / "a", edit))


def test_slices_of_either_coding_in_one_series(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        with_bits(12, signed=True, extended=bool(z % 2))(image, z)

    np.testing.assert_array_equal(read(write_series(tmp_path / "a", edit))[0].hu, CHEST.hu)
