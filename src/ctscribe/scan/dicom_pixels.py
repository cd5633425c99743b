"""DICOM files → the Hounsfield units of their slices; compressed ones go through `open_decoder`.

In: `Slice`s. Out: HU [rows, columns]. Values beyond the bits that a header states are refused.
"""

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_decoder import Decoder, Stored, open_decoder
from ctscribe.scan.dicom_headers import Numbers, read_dataset, reading_dicom
from ctscribe.scan.dicom_sources import DicomFile
from ctscribe.scan.intensity import METAL_HU, PADDING_HU

PlaneHu = Float64[np.ndarray, "rows columns"]
_PADDED_HU = -32768.0
"""Marks voxels outside the scan; `intensity.clip_hu` counts them and makes them air."""
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
"""Groups in which old images declare overlays (PS3.3 C.9.2)."""


@final
@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a series.

    Attributes:
        file: Where it is stored.
        frame: Index within that file, from 0.
        position_lps_mm: Centre of its first voxel.
        slope: HU per stored unit.
        intercept: HU of the stored value 0.
    """

    file: DicomFile
    frame: int
    position_lps_mm: Numbers
    slope: float
    intercept: float


def read_planes(slices: Iterable[Slice], study: str) -> Generator[PlaneHu, None, None]:
    """Yields the HU of each slice; consecutive slices of one file open it once.

    Compressed frames go through one child process, which ends with the generator.

    Raises:
        CtscribeError: ``E_DATATYPE``, ``E_BITS``, ``E_CODEC``, ``E_BOMB``, ``E_TRUNCATED`` or
            ``E_READ``.
    """
    with ExitStack() as children:
        decoder: Decoder | None = None
        held: tuple[DicomFile, FileDataset] | None = None
        for one in slices:
            is_new = held is None or held[0] is not one.file
            if held is None or is_new:
                held = (one.file, _open(one.file, study))
            image = held[1]
            syntax = image.file_meta.get("TransferSyntaxUID")
            with reading_dicom(study):
                shape = (int(image.Rows), int(image.Columns))
                if _is_plain(syntax):
                    pixels = _uncompressed(image, one.frame, shape, study)
                else:
                    _check_codec(syntax, study)
                    decoder = decoder or children.enter_context(open_decoder(study))
                    content = _content(one.file) if is_new else None
                    pixels = decoder.decode(content, one.frame, shape)
                plane = _to_hu(pixels, image, one, study)
            yield plane


def _open(file: DicomFile, study: str) -> FileDataset:
    image = read_dataset(file, study, pixels=True)
    with reading_dicom(study):
        if image is None:
            raise EOFError
        if int(image.SamplesPerPixel) != 1 or int(image.BitsAllocated) != 16:
            raise CtscribeError(
                "E_DATATYPE", f"{study} must hold grey values of 16 bits, but one image does not"
            )
        return image


def _is_plain(syntax: UID | None) -> bool:
    """Whether pixels are uncompressed, as in files without a syntax, which predate compression."""
    return syntax is None or (syntax.is_transfer_syntax and not syntax.is_encapsulated)


def _uncompressed(image: FileDataset, frame: int, shape: tuple[int, int], study: str) -> Stored:
    """Stored values of one frame.

    Raises:
        CtscribeError: ``E_TRUNCATED`` where a row or more is left over, so that part of the chest
            would not be shown.
    """
    num_bytes = int(image.get("NumberOfFrames") or 1) * shape[0] * shape[1] * 2
    left_over = len(image.PixelData) - num_bytes
    if left_over >= shape[1] * 2:
        raise CtscribeError(
            "E_TRUNCATED",
            f"{study} must have as many pixels as its headers state, but one image has {left_over} "
            "bytes more",
        )
    _, little = image.original_encoding
    order, sign = "<" if little else ">", "i2" if image.PixelRepresentation else "u2"
    size = shape[0] * shape[1]
    pixels = np.frombuffer(image.PixelData, order + sign, count=size, offset=frame * size * 2)
    return pixels.reshape(shape)


def _content(file: DicomFile) -> bytes:
    with file.open() as stream:
        return stream.read()


def _check_codec(syntax: UID, study: str) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        # an unknown syntax has only its UID, which may identify where the file is from
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "it"
        raise CtscribeError(
            "E_CODEC",
            f"{study} must be compressed in a way that can be read here, but {name} cannot",
        )


def _to_hu(pixels: Stored, image: FileDataset, one: Slice, study: str) -> PlaneHu:
    """Rescales stored values; the header's padding becomes air.

    Headers also name padding values that tissue has. So padding is believed only outside the
    stated bits, at their upper end, or at 3071 HU and more.

    Raises:
        CtscribeError: ``E_BITS`` for values outside the stated bits.
    """
    bits = _bits(image, study)
    lowest = -(1 << bits - 1) if image.PixelRepresentation else 0
    highest = lowest + (1 << bits) - 1
    padded = _is_padding(pixels, image)
    is_air = padded & ((pixels < lowest) | (pixels >= highest))
    values = np.where(is_air, pixels.dtype.type(0), pixels) if is_air.any() else pixels
    # negative values whose sign was not extended from the stated bits to all 16
    lacks_sign = lowest < 0 <= values.min() and highest < values.max() < 1 << bits
    if lacks_sign or _has_overlay(image, bits):
        values = _without_spare_bits(values, bits, highest)
        padded |= _is_padding(values, image)
    hu = values * np.float64(one.slope) + one.intercept
    is_air |= padded & (hu >= METAL_HU)
    hu[is_air] = _PADDED_HU
    # extending the sign was wrong if it gave several densities that no tissue has
    is_wrong = lacks_sign and np.unique(hu[(hu < PADDING_HU) & ~is_air]).size > 1
    if is_wrong or values.min() < lowest or values.max() > highest:
        raise _refuse_bits(bits, study)
    return hu


def _bits(image: FileDataset, study: str) -> int:
    bits, high = int(image.get("BitsStored", 16)), image.get("HighBit")
    if not (1 <= bits <= 16 and (high is None or int(high) == bits - 1)):
        raise _refuse_bits(bits, study)
    return bits


def _is_padding(pixels: Stored, image: FileDataset) -> Bool[np.ndarray, "rows columns"]:
    """Where pixels have PixelPaddingValue, or lie between it and PixelPaddingRangeLimit.

    Both are compared as 16-bit words, since headers state them with either sign.
    """
    stated = [image.get(tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    words = np.array([value & 0xFFFF for value in stated if isinstance(value, int)], np.uint16)
    if not isinstance(stated[0], int):
        return np.zeros(pixels.shape, bool)
    ends = words.view(np.int16) if image.PixelRepresentation else words
    return np.asarray((pixels >= ends.min()) & (pixels <= ends.max()))


def _has_overlay(image: FileDataset, bits: int) -> bool:
    """Whether overlays are stored in the pixels' unused high bits, as in old images."""
    return any(
        (group, 0x0102) in image
        and (group, 0x3000) not in image
        and int(image[group, 0x0102].value or 0) >= bits
        for group in _OVERLAY_GROUPS
    )


def _without_spare_bits(values: Stored, bits: int, highest: int) -> Stored:
    """The stated bits of each value, sign-extended where they are signed."""
    kept = values.astype(np.int32) & ((1 << bits) - 1)
    return np.where(kept > highest, kept - (1 << bits), kept)


def _refuse_bits(bits: int, study: str) -> CtscribeError:
    return CtscribeError(
        "E_BITS",
        f"{study} must hold values of the {bits} bits that its header states, but one slice "
        "has others",
    )
