"""DICOM files, parsed; what is damaged ends in a sentence that quotes nothing of it."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from ctscribe.errors import CtscribeError
from ctscribe.volume.dicom_headers import TAGS, Header, slices_of
from ctscribe.volume.dicom_sources import DicomFile, begins_bare
from ctscribe.volume.notes import Notes, note_if

_PROGRAMS = (b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa", b"#!", b"%PDF", b"PK")
"""First bytes of what a computer would run or open, if the file were called otherwise."""
_UNREADABLE = (
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    BytesLengthException,
    InvalidDicomError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged files; its messages may quote them, so they are not passed on."""


def read_headers(files: list[DicomFile], study: str) -> tuple[list[Header], Notes]:
    """Headers of all slices in DICOM files, in their order.

    Returns:
        Headers; ``W_OTHER_FILES`` when some files are no DICOM, ``W_PREAMBLE`` when one begins
        as a program.

    Raises:
        CtscribeError: ``E_NOT_DICOM`` when there is none, ``E_TRUNCATED`` when one is damaged,
            ``E_MULTIFRAME``, ``E_CODEC`` or ``E_READ``.
    """
    headers: list[Header] = []
    others = programs = 0
    for file in files:
        image = read_dataset(file, study, pixels=False)
        if image is None:
            others += 1
            continue
        programs += (image.preamble or b"").startswith(_PROGRAMS)
        with readable(study):
            if image.file_meta.get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage:
                headers.extend(slices_of(file, image, study))
    if not headers:
        raise CtscribeError(
            "E_NOT_DICOM",
            f"{study} must hold DICOM files, but none was found in it",
        )
    return headers, note_if(others > 0, "W_OTHER_FILES") | note_if(programs > 0, "W_PREAMBLE")


def read_dataset(file: DicomFile, study: str, *, pixels: bool) -> FileDataset | None:
    """A whole file or its header; None for a file that neither is DICOM nor claims to be."""
    with readable(study), file.open() as stream:
        start = stream.read(2048)
        bare = begins_bare(start)
        if start[128:132] != b"DICM" and not bare:
            if file.claimed:
                raise EOFError
            return None
        if str(DeflatedExplicitVRLittleEndian).encode() in start:
            raise CtscribeError(
                "E_CODEC",
                f"{study} must not be deflated as a whole, because such a file can inflate "
                "without bound",
            )
        stream.seek(0)
        if pixels:
            return pydicom.dcmread(stream, force=bare)
        tags = list(TAGS)
        return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=tags, force=bare)


@contextmanager
def readable(study: str) -> Iterator[None]:
    """Turns damage into a sentence; silences pydicom's warnings and log, which quote values."""
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        except _UNREADABLE as error:
            raise _damaged(study) from error
        except OSError as error:
            if error.errno is None:  # pydicom's own, for sequences that it cannot follow
                raise _damaged(study) from error
            raise CtscribeError(
                "E_READ", f"{study} must be readable, but {error.strerror}"
            ) from error
        finally:
            log.setLevel(level)


def _damaged(study: str) -> CtscribeError:
    return CtscribeError(
        "E_TRUNCATED",
        f"{study} must consist of complete DICOM files, but one is cut or damaged",
    )
