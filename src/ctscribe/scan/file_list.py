"""The files of one study, wherever they lie, as a list that is read in a folder's place.

An export may hold many studies in one folder, or one study in many, and the names of its folders
may tell of patients; whoever reads the study is given the list's own name instead.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import object_in, read_json, write_json

SUFFIX = ".files"
Entries = Collection[int] | None
"""Numbers of an archive's entries, see `DicomFile`; None for a file that is no archive."""


def is_file_list(path: Path) -> bool:
    """Whether a path is such a list, by its name."""
    return path.suffix == SUFFIX and path.is_file()


def write_file_list(path: Path, files: Mapping[Path, Entries]) -> None:
    """Writes a list of files, given by their `absolute_path`.

    Paths are kept relative to the list's folder, so that both can be moved together. They are
    percent-encoded as in a URL, because a file name need not be valid UTF-8.
    """
    folder = path.parent.resolve()
    named = {
        quote(os.fsencode(os.path.relpath(file, folder)), safe="/ "): entries
        for file, entries in files.items()
    }
    listed = {name: None if entries is None else sorted(entries) for name, entries in named.items()}
    write_json(path, {"files": dict(sorted(listed.items()))})


def read_file_list(path: Path) -> dict[Path, Entries]:
    """Reads the files of a list; whether they still exist is not checked.

    Raises:
        CtscribeError: ``E_JSON`` for what is no list, or as `read_json`.
    """
    found = object_in(read_json(path), "files")
    for entries in found.values():
        of_archive = isinstance(entries, list) and all(type(each) is int for each in entries)
        if entries is not None and not of_archive:
            raise CtscribeError("E_JSON", f"{path} must be a list of files, but is other JSON")
    folder = path.parent.resolve()
    return {folder / os.fsdecode(unquote_to_bytes(name)): each for name, each in found.items()}


def absolute_path(file: Path) -> Path:
    """The absolute path of a file: links in its folder are resolved, the file itself is not."""
    return file.parent.resolve() / file.name


def is_inside(file: Path, folder: Path) -> bool:
    """Whether a path lies in a folder; both are absolute, with links resolved."""
    return Path(os.path.normpath(file)).is_relative_to(folder)
