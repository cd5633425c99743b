"""DICOM files → the stored values of their frames, uncompressed or by `open_decoder`.

In: pairs of file and frame. Out: integers [rows, columns] within the bits that the header states.
"""

from collections.abc import Generator, Iterable
from contextlib import ExitStack

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_decoder import Decoder, Stored, open_decoder
from ctscribe.scan.dicom_headers import read_dataset, readable
from ctscribe.scan.dicom_sources import DicomFile


def read_stored(
    frames: Iterable[tuple[DicomFile, int]], study: str
) -> Generator[Stored, None, None]:
    """Yields the stored values of each frame; a file of many frames is opened once in a row.

    Compressed frames go through one child process, which ends with the generator.

    Raises:
        CtscribeError: ``E_DATATYPE``, ``E_BITS``, ``E_CODEC``, ``E_BOMB``, ``E_TRUNCATED`` or
            ``E_READ``.
    """
    with ExitStack() as children:
        decoder: Decoder | None = None
        held: tuple[DicomFile, FileDataset] | None = None
        for file, frame in frames:
            is_new = held is None or held[0] is not file
            if held is None or is_new:
                held = (file, _open(file, study))
            image = held[1]
            syntax = image.file_meta.get("TransferSyntaxUID")
            with readable(study):
                shape = (int(image.Rows), int(image.Columns))
                if _is_plain(syntax):
                    pixels = _view(image, frame, shape)
                else:
                    _check_codec(syntax, study)
                    decoder = decoder or children.enter_context(open_decoder(study))
                    pixels = decoder.decode(_content(file) if is_new else None, frame, shape)
                pixels = _within_bits(pixels, image, study)
            yield pixels


def _open(file: DicomFile, study: str) -> FileDataset:
    image = read_dataset(file, study, pixels=True)
    with readable(study):
        if image is None:
            raise EOFError
        if int(image.SamplesPerPixel) != 1 or int(image.BitsAllocated) != 16:
            raise CtscribeError(
                "E_DATATYPE",
                f"{study} must hold grey values of 16 bits, but one image does not",
            )
        return image


def _is_plain(syntax: UID | None) -> bool:
    """Whether pixels are stored as they are; files without a syntax are older than compression."""
    return syntax is None or (syntax.is_transfer_syntax and not syntax.is_encapsulated)


def _view(image: FileDataset, frame: int, shape: tuple[int, int]) -> Stored:
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
        # an unknown syntax has no name but its number, which is the file's own
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "it"
        raise CtscribeError(
            "E_CODEC",
            f"{study} must be compressed in a way that can be read here, but {name} cannot",
        )


def _within_bits(pixels: Stored, image: FileDataset, study: str) -> Stored:
    """Refuses values outside the stated bits, except padding, which becomes the lowest of them.

    Padding may lie outside or at the upper end, where it would be read as metal. Other values
    outside are no densities: overlays of old scanners in the spare bits, a wrong number of bits
    and a wrong sign look alike.
    """
    bits, high = int(image.get("BitsStored", 16)), image.get("HighBit")
    if not (1 <= bits <= 16 and (high is None or int(high) == bits - 1)):
        raise _refuse_bits(bits, study)
    signed = bool(image.PixelRepresentation)
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    lowest, highest = int(pixels.min()), int(pixels.max())
    padding = image.get("PixelPaddingValue")
    if isinstance(padding, int) and not (least <= lowest and highest < most):
        is_padding = pixels.astype(np.uint16) == (padding & 0xFFFF)
        is_padding &= (pixels < least) | (pixels >= most)
        pixels = np.where(is_padding, pixels.dtype.type(least), pixels)
        lowest, highest = int(pixels.min()), int(pixels.max())
    if lowest < least or highest > most:
        raise _refuse_bits(bits, study)
    return pixels


def _refuse_bits(bits: int, study: str) -> CtscribeError:
    return CtscribeError(
        "E_BITS",
        f"{study} must hold values of the {bits} bits that its header states, but one slice "
        "has others",
    )
