"""A list of files is read as the folder they would make, wherever they lie."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ctscribe.scan.file_list import absolute_path, is_inside, read_file_list, write_file_list
from ctscribe.scan.read import fingerprint, read_grid, read_volume, sha256_of_source
from tests.dicom import write_series
from tests.refusals import refusal


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write_series(tmp_path / "export")


def listed(series: Path) -> Path:
    path = series.parent / "private" / "scan.files"
    write_file_list(path, {absolute_path(file): None for file in series.iterdir()})
    return path


def test_a_list_is_read_as_its_folder(series: Path) -> None:
    path = listed(series)
    mine, theirs = (read_volume(each, study="x")[0] for each in (path, series))
    assert np.array_equal(mine.hu, theirs.hu)
    assert np.array_equal(read_grid(path, study="x")[0].affine, theirs.affine)
    assert fingerprint(path, "x") == fingerprint(series, "x")
    assert sha256_of_source(path) == sha256_of_source(series)


def test_entries_of_an_archive(series: Path) -> None:
    files = sorted(series.iterdir())
    with zipfile.ZipFile(series.parent / "all.zip", "w") as archive:
        archive.writestr("0/notes.txt", "none")
        for file in files:
            archive.write(file, f"1/{file.name}")
    path = series.parent / "scan.files"
    write_file_list(path, {absolute_path(series.parent / "all.zip"): range(1, len(files) + 1)})
    mine, theirs = (read_volume(each, study="x")[0] for each in (path, series))
    assert np.array_equal(mine.hu, theirs.hu)


def test_it_moves_with_its_files_whatever_they_are_called(series: Path) -> None:
    odd = os.fsdecode(b"\xff=\n%41")
    next(series.iterdir()).rename(series / odd)
    path = listed(series)
    moved = series.parent.rename(series.parent.with_name("moved"))
    there = read_file_list(moved / path.relative_to(series.parent))
    assert {file.name for file in there} == {file.name for file in (moved / "export").iterdir()}
    assert odd in {file.name for file in there}
    assert all(is_inside(file, moved.resolve()) for file in there)
    assert not is_inside(moved.resolve() / "../else", moved.resolve())


def test_files_that_are_gone_and_other_json_are_refused(series: Path) -> None:
    path = listed(series)
    next(series.iterdir()).unlink()
    with refusal("E_READ", "one that is listed is gone"):
        read_volume(path, study="x")
    path.write_text('{"files": {"a": "b"}}')
    with refusal("E_JSON", "a list of files"):
        read_volume(path, study="x")
