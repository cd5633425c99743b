"""A series in one enhanced file is the same as in many, and one file cannot cost much."""

import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from ctscribe.base.errors import CtscribeError
from ctscribe.scan import dicom_sources as zipped
from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.read import read_grid, sha256_of_source
from tests.catalogue.dicom_bytes import claiming_4_gb, nested
from tests.dicom import bytes_of, group
from tests.refusals import refusal
from tests.scan.dicom_slices import (
    COLUMNS,
    DEPTH,
    HU,
    ROWS,
    STUDY,
    check,
    enhanced,
    make_slice,
    pack,
    put,
    refused,
    series,
    stored,
    with_field,
    write_series,
)


def test_enhanced_file(tmp_path: Path) -> None:
    path = put(tmp_path / "one.dcm", bytes_of(enhanced()))
    check(path)
    check(tmp_path)
    check(pack(tmp_path / "a.zip", {"one.dcm": path.read_bytes()}))


def test_compressed_enhanced_file(tmp_path: Path) -> None:
    image = enhanced()
    image.compress(RLELossless, generate_instance_uid=False)
    check(put(tmp_path / "one.dcm", bytes_of(image)))


def test_frames_may_have_their_own_scaling(tmp_path: Path) -> None:
    image = enhanced()
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for frame, item in enumerate(image.PerFrameFunctionalGroupsSequence):
        item.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-frame)
    hu, _, _ = read_dicom(put(tmp_path / "one.dcm", bytes_of(image)), STUDY)
    np.testing.assert_array_equal(hu[:, :, DEPTH - 3], stored(DEPTH - 3).T.astype(np.int16) - 2)


Edit = Callable[[FileDataset], None]
ENHANCED = bytes_of(enhanced())


def without_position(image: FileDataset) -> None:
    del image.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def without_scaling(image: FileDataset) -> None:
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


def fewer_frames_stated(image: FileDataset) -> None:
    image.NumberOfFrames = DEPTH - 1


def without_groups(image: FileDataset) -> None:
    del image.PerFrameFunctionalGroupsSequence


def cut_pixels(image: FileDataset) -> None:
    image.PixelData = image.PixelData[:-2]


def a_localizer(image: FileDataset) -> None:
    image.ImageType = "LOCALIZER"


def localizer_frames(image: FileDataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence:
        item.CTImageFrameTypeSequence[0].FrameType[2] = "LOCALIZER"


def two_phases(image: FileDataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence[DEPTH // 2 :]:
        item.PlanePositionSequence[0].ImagePositionPatient[2] += DEPTH


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (without_position, "E_DICOM_TAG"),
        (without_scaling, "E_NO_RESCALE"),
        (fewer_frames_stated, "E_TRUNCATED"),
        (without_groups, "E_MULTIFRAME"),
        (cut_pixels, "E_TRUNCATED"),
        (a_localizer, "E_NOT_CT"),
        (localizer_frames, "E_NOT_CT"),
        (two_phases, "E_DUPLICATE_SLICE"),
    ],
)
def test_faulty_enhanced_files(tmp_path: Path, edit: Edit, code: str) -> None:
    image = enhanced()
    edit(image)
    assert refused(put(tmp_path / "one.dcm", bytes_of(image))).code == code


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_mutated_enhanced_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(ENHANCED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(changed) - 1))
        stop = at + data.draw(st.sampled_from([0, 1, 1, 1, 9]))
        changed[at:stop] = data.draw(st.binary(max_size=4))
    path = put(tmp_path_factory.getbasetemp() / "mutated.dcm", bytes(changed))
    told = ""
    try:
        hu, affine, _ = read_dicom(path, STUDY)
        assert hu.shape[:2] == (COLUMNS, ROWS)
        assert np.isfinite(affine).all()
    except CtscribeError as error:
        told = error.sentence
    assert "PLANTED" not in told


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    kept, study = write_series(tmp_path / "kept"), tmp_path / "study"
    study.mkdir()
    for name, target in (("a", kept), ("b", kept), ("loop", study)):
        (study / name).symlink_to(target)
    hu, _, notes = read_dicom(study, STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == set()
    assert sha256_of_source(study) == sha256_of_source(kept)


def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    write_series(tmp_path)
    monkeypatch.setattr(os, "scandir", refuse)
    with refusal("E_READ", "must be .*readable.*, but Permission denied"):
        read_dicom(tmp_path, STUDY)


def test_one_classic_file_is_no_volume(tmp_path: Path) -> None:
    error = refused(put(tmp_path / "one.dcm", bytes_of(make_slice(0))))
    assert error.code == "E_TOO_FEW_SLICES"
    assert "but has one slice; give the whole series" in error.sentence


def test_wholly_deflated_files_are_not_inflated(tmp_path: Path) -> None:
    image = make_slice(0)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert refused(put(tmp_path / "one.dcm", bytes_of(image))).code == "E_CODEC"


@pytest.mark.parametrize("change", [nested(1000), claiming_4_gb(b"\xe0\x7f\x10\x00OW")])
def test_hostile_elements_of_one_file(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    content = change(bytes_of(make_slice(0)))
    assert refused(put(tmp_path / "one.dcm", content)).code in ("E_TRUNCATED", "E_TOO_FEW_SLICES")


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
