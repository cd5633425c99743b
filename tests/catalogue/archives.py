"""Rows 42 and 43: zip archives that lead elsewhere, and names that nobody expects."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from tests.catalogue.case import Build, Case
from tests.catalogue.dicom_folders import DEPTH
from tests.catalogue.nifti_bytes import PACKED
from tests.dicom import bytes_of, slice_of, write_series

WHOLE = [bytes_of(slice_of(z)) for z in range(DEPTH)]


def zipped(extra: dict[str, bytes], edit: Callable[[zipfile.ZipFile], None] | None = None) -> Build:
    """The series as a zip archive, with other entries."""

    def build(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "series.zip", "w", zipfile.ZIP_DEFLATED, True, 1) as archive:
            for z, content in enumerate(WHOLE):
                archive.writestr(f"series/{z}.dcm", content)
            for name, content in extra.items():
                archive.writestr(name, content)
            if edit:
                edit(archive)
        return folder / "series.zip"

    return build


def add_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def changed_directory(at: int, value: bytes, signature: bytes = b"PK\x01\x02") -> Build:
    """An archive whose directory lies."""

    def build(folder: Path) -> Path:
        path = zipped({})(folder)
        content = path.read_bytes()
        place = content.index(signature) + at
        path.write_bytes(content[:place] + value + content[place + len(value) :])
        return path

    return build


def with_dicomdir(folder: Path) -> Path:
    """A directory of media that points out of its folder; it is never followed."""
    write_series(folder / "series")
    image = slice_of(0)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    record = Dataset()
    record.add_new("ReferencedFileID", "LO", ["..", "..", "etc", "passwd"])
    image.DirectoryRecordSequence = [record]
    for name in ("DICOMDIR", "dicomdir.dcm"):
        (folder / "series" / name).write_bytes(bytes_of(image))
    return folder / "series"


def named(name: str) -> Build:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(PACKED)
        return folder / name

    return build


def in_folder_named(name: str) -> Build:
    return lambda folder: write_series(folder / name)


def made(name: str, make: Callable[[Path], object]) -> Build:
    def build(folder: Path) -> Path:
        make(folder / name)
        return folder / name

    return build


LONG = "a" * 245 + ".nii.gz"
CASES = [
    Case(42, "zip", zipped({})),
    Case(42, "out of the zip", zipped({"../evil.dcm": b"x"}), "E_ARCHIVE", "path that leads out"),
    Case(42, "absolute", zipped({"/etc/evil.dcm": b"x"}), "E_ARCHIVE", "path that leads out"),
    Case(42, "link", zipped({}, add_link), "E_ARCHIVE", "a link in it"),
    Case(42, "zip in zip", zipped({"inner.zip": b"x"}), "E_ARCHIVE", "another archive"),
    Case(
        42,
        "a million entries",
        changed_directory(8, b"\xff\xfe" * 2, b"PK\x05\x06"),
        "E_ARCHIVE",
        "more than 20000 files",
    ),
    Case(
        42, "size too small", changed_directory(24, b"\x0a\0\0\0"), "E_TRUNCATED", "cut or damaged"
    ),
    Case(42, "size of 3 GB", changed_directory(24, b"\0\0\0\xc0"), "E_ARCHIVE", "would take 3 GB"),
    Case(42, "bomb", zipped({"a.dcm": bytes(200 << 20)}), "E_BOMB", "which no CT does"),
    Case(42, "DICOMDIR", with_dicomdir),
    *(
        Case(43, f"file {name[:12]!a}", named(name))
        for name in (
            "a b.nii.gz",
            "Röntgen 胸部.nii.gz",
            "a\nb.nii.gz",
            "-rf.nii.gz",
            LONG,
            "=cmd()|'calc'!A0.nii.gz",
            "<script>.nii.gz",
            "a‮gz.iin.nii.gz",
        )
    ),
    *(
        Case(43, f"folder {name!a}", in_folder_named(name))
        for name in ("Göğüs BT", "a\nb", "-rf", "series.nii.gz", "x.zip")
    ),
    Case(43, "empty folder named as file", made("x.nii.gz", Path.mkdir), "E_NOT_DICOM", "none was"),
    Case(
        43,
        "dangling link",
        made("x.nii.gz", lambda path: path.symlink_to("nowhere")),
        "E_MISSING",
        "its file is not there",
    ),
    Case(
        43,
        "looping link",
        made("x.nii.gz", lambda path: path.symlink_to(path)),
        "E_READ",
        "readable",
    ),
    Case(43, "pipe", made("x.nii.gz", os.mkfifo), "E_READ", "a pipe or device"),
]
