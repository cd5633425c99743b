"""A series in a zip archive is the same as in a folder, and no archive leads elsewhere."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan import dicom_sources as zipped
from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.read import read_grid
from tests.scan.dicom_slices import (
    COLUMNS,
    DEPTH,
    ROWS,
    STUDY,
    check,
    pack,
    put,
    refused,
    series,
    stored,
    with_field,
)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_of_a_series(tmp_path: Path, method: int) -> None:
    others = {"__MACOSX/study/._00.dcm": b"\0\5\x16\7", "README.txt": b"words", "DICOMDIR": b"x"}
    check(pack(tmp_path / "a.zip", series(), method))
    check(pack(tmp_path / "no suffix", {**series(), **others}), "W_OTHER_FILES")


def test_grid_of_a_zip(tmp_path: Path) -> None:
    grid, _ = read_grid(pack(tmp_path / "a.zip", series()), study=STUDY)
    assert grid.shape_xyz == (COLUMNS, ROWS, DEPTH)
    assert grid.orientation == "RAS"


DIRECTORY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.dcm", "path that leads out"),
        ("a/../../evil.dcm", "path that leads out"),
        ("/etc/evil.dcm", "path that leads out"),
        ("..\\evil.dcm", "path that leads out"),
        ("inner.zip", "another archive"),
        ("scan.nii.gz", "another archive"),
    ],
)
def test_hostile_names(tmp_path: Path, name: str, says: str) -> None:
    error = refused(pack(tmp_path / "a.zip", {**series(), name: b"x"}))
    assert error.code == "E_ARCHIVE"
    assert says in error.sentence
    assert "evil" not in error.sentence


def test_archives_within_links_and_secrets(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", series()).read_bytes()
    assert "another archive" in refused(pack(tmp_path / "a.zip", {"x.dcm": inner})).sentence
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        link = zipfile.ZipInfo("x.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "a link in it" in refused(tmp_path / "b.zip").sentence
    plain = pack(tmp_path / "c.zip", series()).read_bytes()
    secret = with_field(plain, DIRECTORY, 8, b"\1\0")
    assert "is encrypted" in refused(put(tmp_path / "d.zip", secret)).sentence
    bzip2 = pack(tmp_path / "e.zip", series(), zipfile.ZIP_BZIP2)
    assert "another method" in refused(bzip2).sentence


def test_bombs_are_refused_unread(tmp_path: Path) -> None:
    error = refused(pack(tmp_path / "a.zip", {"a.dcm": b"\0" * (80 << 20)}))
    assert (error.code, "which no CT does" in error.sentence) == ("E_BOMB", True)
    plain = pack(tmp_path / "b.zip", series()).read_bytes()
    huge = with_field(plain, DIRECTORY, 24, (3 << 30).to_bytes(4, "little"))
    assert "would take 3 GB" in refused(put(tmp_path / "c.zip", huge)).sentence
    many = with_field(plain, b"PK\x05\x06", 8, (20_001).to_bytes(2, "little") * 2)
    assert "more than 20000 files" in refused(put(tmp_path / "d.zip", many)).sentence
    names = with_field(plain, b"PK\x05\x06", 12, (9 << 20).to_bytes(4, "little"))
    assert "absurdly long names" in refused(put(tmp_path / "e.zip", names)).sentence


def test_a_declared_size_is_held_to(tmp_path: Path) -> None:
    plain = pack(tmp_path / "a.zip", series()).read_bytes()
    for size in (10, 100_000):
        lying = with_field(plain, DIRECTORY, 24, size.to_bytes(4, "little"))
        assert refused(put(tmp_path / "b.zip", lying)).code == "E_TRUNCATED"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.995])
def test_cut_archives(tmp_path: Path, share: float) -> None:
    plain = pack(tmp_path / "a.zip", series()).read_bytes()
    cut = put(tmp_path / "b.zip", plain[: int(len(plain) * share)])
    assert refused(cut).code == "E_TRUNCATED"


def test_flipped_bytes_in_an_archive(tmp_path: Path) -> None:
    plain = pack(tmp_path / "a.zip", series()).read_bytes()
    random, told = np.random.default_rng(0), []
    for at in random.integers(4, len(plain), 60):
        changed = bytearray(plain)
        changed[at] ^= 1 << int(random.integers(8))
        try:
            hu, _, _ = read_dicom(put(tmp_path / "b.zip", bytes(changed)), STUDY)
        except CtscribeError as error:
            told.append(error.sentence)
        else:
            np.testing.assert_array_equal(hu[:, :, 3], stored(3).T.astype(np.int16) - 1024)
    assert len(told) > 30
    assert "PLANTED" not in "".join(told)


def test_archives_without_a_series(tmp_path: Path) -> None:
    assert refused(pack(tmp_path / "a.zip", {"notes.txt": b"words"})).code == "E_NOT_DICOM"
    assert refused(pack(tmp_path / "b.zip", {"x.dcm": b""})).code == "E_TRUNCATED"


def test_zip64_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    assert "larger than 4 GB" in refused(pack(tmp_path / "a.zip", series())).sentence


def test_nothing_is_unpacked_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    check(pack(tmp_path / "a.zip", series()))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "tmp"]
    assert (tmp_path / "a.zip").read_bytes()[:4] == zipped.MAGIC
