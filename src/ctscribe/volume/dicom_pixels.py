"""Stored values of DICOM slices, compressed or not."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Integer
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from ctscribe.errors import CtscribeError
from ctscribe.volume.dicom_files import read_dataset, readable
from ctscribe.volume.dicom_sources import DicomFile

Stored = Integer[np.ndarray, "rows columns"]


def read_stored(frames: Iterable[tuple[DicomFile, int]], study: str) -> Iterator[Stored]:
    """Yields the stored values of each frame; a file of many frames is opened once in a row.

    Raises:
        CtscribeError: ``E_DATATYPE``, ``E_CODEC``, ``E_TRUNCATED`` or ``E_READ``.
    """
    held: tuple[DicomFile, FileDataset] | None = None
    for file, frame in frames:
        if held is None or held[0] is not file:
            held = (file, _open(file, study))
        with readable(study):
            pixels = _decode(held[1], frame, study)
        yield pixels


def _open(file: DicomFile, study: str) -> FileDataset:
    image = read_dataset(file, study, pixels=True)
    with readable(study):
        if image is None:
            raise EOFError
        if int(image.SamplesPerPixel) != 1 or int(image.BitsAllocated) != 16:
            raise CtscribeError(
                "E_DATATYPE",
                f"{study} must hold grey values of 16 bits, but one image does not; "
                "export the CT itself, not a rendering",
            )
        return image


def _decode(image: FileDataset, frame: int, study: str) -> Stored:
    syntax = image.file_meta.TransferSyntaxUID
    rows, columns = int(image.Rows), int(image.Columns)
    if not syntax.is_transfer_syntax or syntax.is_encapsulated:
        _check_codec(syntax, study)
        try:
            pixels = pixel_array(image, index=frame)
        except RuntimeError as error:
            raise EOFError from error
        if pixels.shape != (rows, columns):
            raise EOFError
        return pixels
    sign = "i2" if image.PixelRepresentation else "u2"
    order = "<" if syntax.is_little_endian else ">"
    size = rows * columns
    dtype = np.dtype(order + sign)
    pixels = np.frombuffer(image.PixelData, dtype, count=size, offset=frame * size * dtype.itemsize)
    return pixels.reshape(rows, columns)


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
            f"{study} must be compressed in a way that can be read here, but {name} cannot; "
            "run pip install pylibjpeg[all] or export it uncompressed",
        )
