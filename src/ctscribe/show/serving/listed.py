"""Scans that may be named instead of uploaded: those below one folder, under ids of our own."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import final

from ctscribe.scan.dicom_sources import is_dicom

_FILES = (".nii", ".nii.gz", ".zip")
_LOOKED_AT = 5
"""Files of a folder that are opened to see whether it holds DICOM."""


@final
class ListedScans:
    """The scans below a folder; an id stands for the same scan as long as the server runs."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._ids: dict[str, str] = {}

    def list(self) -> dict[str, str]:
        """The paths that are there now, relative to the folder, by id."""
        if self._folder is None:
            return {}
        paths = sorted(path.relative_to(self._folder).as_posix() for path in _scans(self._folder))
        for path in paths:
            self._ids.setdefault(path, secrets.token_urlsafe(12))
        return {self._ids[path]: path for path in paths}

    def find(self, scan_id: str) -> Path | None:
        """Where the scan of an id lies, as long as it does; an id is never read as a path."""
        path = self.list().get(scan_id)
        return None if path is None or self._folder is None else self._folder / path


def _scans(folder: Path) -> Iterator[Path]:
    """Files of volumes, archives and single DICOM images, and folders of DICOM; links are none."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(where, name) for name in sorted(names) if not name.startswith(".")]
        files = [file for file in files if file.is_file() and not file.is_symlink()]
        yield from (file for file in files if file.name.lower().endswith(_FILES))
        others = [file for file in files if not file.name.lower().endswith(_FILES)]
        if any(_opens_as_dicom(file) for file in others[:_LOOKED_AT]):
            yield others[0] if len(others) == 1 else Path(where)


def _opens_as_dicom(file: Path) -> bool:
    with suppress(OSError):
        return is_dicom(file)
    return False
