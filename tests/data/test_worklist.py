"""An export becomes a manifest that names nobody; what is bad is listed and stops nothing."""

import csv
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctscribe.base.recipe import ModelConfig, SlicesConfig, VolumeConfig
from ctscribe.base.rows import StudyRow, read_rows
from ctscribe.data import survey as surveying
from ctscribe.data.doctor import examine
from ctscribe.data.prepare import prepare
from ctscribe.data.pseudonyms import open_key
from ctscribe.data.survey import survey
from ctscribe.data.worklist import Worklist, write_worklist
from ctscribe.scan.dicom_sources import DicomFile, dicom_files
from ctscribe.scan.file_list import read_file_list
from tests.dicom import write_series
from tests.exports import PLANTED, write_export
from tests.refusals import refusal

VOLUME = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
SLICES = SlicesConfig(num_slices=4, frame_size_px=(56, 84))
REPORTS = (
    "Accession Number,report\r\n"
    'ACC880,"Findings: Clear.\nImpression: \x1b[31mNormal."\r\n'
    "ACC881,=cmd|x\r\nACC889,Of nobody.\r\n"
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("archive") / "export")


@pytest.fixture(scope="module")
def listed(export: Path) -> Worklist:
    (export.parent / "reports.csv").write_text(REPORTS)
    return write_worklist(
        [export], export.parent / "scans.csv", reports=export.parent / "reports.csv", processes=2
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_one_series_of_each_study_is_chosen_and_says_why(listed: Worklist) -> None:
    rows = {row["series"] + row["kernel"]: row for row in rows_of(listed.scans_path)}
    assert set(rows) == {"3Br40d 3", "1FC03", "1"}
    soft = rows["3Br40d 3"]
    assert soft["chosen"] == "series 3 (40 axial slices of 8 mm)"
    assert "series 2 (40 axial slices of 8 mm); series 4 (40 coronal" in soft["why"]
    assert "softest kernel" in soft["why"]
    assert soft["thickness_mm"] == "8"
    assert rows["1FC03"]["why"] == "the only CT series"
    assert (listed.num_scans, listed.num_patients, listed.num_files) == (3, 3, 204)


def test_what_is_bad_is_listed_apart(listed: Worklist) -> None:
    (row,) = rows_of(listed.skipped_path)
    assert (row["kind"], row["code"]) == ("file", "E_TRUNCATED")
    (there,) = read_file_list(listed.private_dir / f"{row['name']}.files")
    assert there.name == "PLANTED.dcm"


def test_nobody_is_named_but_beside_the_key(listed: Worklist, export: Path) -> None:
    for path in (listed.scans_path, listed.skipped_path):
        text = path.read_text()
        assert [word for word in PLANTED if word in text] == []
        assert "\x1b" not in text
    names = [path.name for path in listed.private_dir.iterdir()]
    assert [word for word in PLANTED if word in " ".join(names)] == []
    assert stat.S_IMODE(listed.private_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(listed.key_path.stat().st_mode) == 0o600


def test_texts_are_joined_by_accession_number(listed: Worklist) -> None:
    texts = {row["kernel"]: row["report"] for row in rows_of(listed.scans_path)}
    assert texts == {
        "Br40d 3": "Findings: Clear.\nImpression: Normal.",
        "FC03": "'=cmd|x",  # as a spreadsheet must read it
        "": "",
    }
    assert listed.num_without_report == 1


def test_a_number_that_two_scans_share_gives_neither_the_text(tmp_path: Path) -> None:
    for study in ("1", "2"):
        folder = tmp_path / "export" / study
        folder.parent.mkdir(exist_ok=True)

        def edit(image: object, z: int, study: str = study) -> None:
            image.AccessionNumber, image.StudyInstanceUID = "A1", f"1.2.{study}"  # type: ignore[attr-defined]

        write_series(folder, edit, series=f"1.2.{study}.1")
    (tmp_path / "reports.csv").write_text("accession,findings,impression\nA1,Clear.,None.\n")
    found = write_worklist(
        [tmp_path / "export"], tmp_path / "scans.csv", reports=tmp_path / "reports.csv"
    )
    assert (found.num_scans, found.num_patients, found.num_without_report) == (2, 1, 2)


def test_the_same_key_gives_the_same_names_and_another_others(
    listed: Worklist, export: Path, tmp_path: Path
) -> None:
    def names(found: Worklist) -> list[str]:
        return [row["patient"] for row in rows_of(found.scans_path)]

    again = write_worklist([export], tmp_path / "a.csv", key=listed.key_path)
    other = write_worklist([export], tmp_path / "b.csv")
    assert names(again) == names(listed)
    assert not set(names(other)) & set(names(listed))
    assert (again.is_new_key, other.is_new_key) == (False, True)
    assert again.leads_outside
    assert not listed.leads_outside


def test_a_list_that_somebody_went_on_with_is_not_written_over(
    export: Path, tmp_path: Path
) -> None:
    write_worklist([export], tmp_path / "scans.csv")
    write_worklist([export], tmp_path / "scans.csv")
    with (tmp_path / "scans.csv").open("a") as file:
        file.write("a.nii.gz,P,S,,,,,\n")
    with refusal("E_EXISTS", "holds another one"):
        write_worklist([export], tmp_path / "scans.csv")


def test_a_zip_archive_is_listed_as_its_folder(
    listed: Worklist, export: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for path in sorted(export.rglob("*")):
            name = re.sub(r"[^\w/.]", "_", str(path.relative_to(export)))
            archive.write(path, name)
    found = write_worklist([tmp_path / "export.zip"], tmp_path / "scans.csv", key=listed.key_path)
    mine, theirs = (
        [(row["scan"], row["chosen"], row["why"]) for row in rows_of(each.scans_path)]
        for each in (found, listed)
    )
    assert mine == theirs
    assert found.skipped_by_code == {"E_TRUNCATED": 1}


@pytest.mark.parametrize("reports", [True, False])
def test_the_list_is_prepared(
    listed: Worklist, export: Path, tmp_path: Path, reports: bool
) -> None:
    scans = listed.scans_path
    if not reports:
        scans = write_worklist([export], export.parent / "bare.csv", key=listed.key_path).scans_path
    summary = prepare(scans, tmp_path / "out", VOLUME, SLICES, keep="slices")
    rows = read_rows(tmp_path / "out/studies.jsonl", StudyRow)
    assert {row.has_report for row in rows} == {reports}
    skipped = {"E_EMPTY_REPORT": 1} if reports else {}
    assert (summary.num_prepared, summary.skipped_by_code) == (3 - reports, skipped)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.json*"))
    assert [word for word in PLANTED if word.encode() in written] == []


def test_files_outside_the_list_must_be_allowed(
    listed: Worklist, export: Path, tmp_path: Path
) -> None:
    write_worklist([export], tmp_path / "scans.csv", key=listed.key_path)
    with refusal("E_MANIFEST", "--allow-outside"):
        prepare(tmp_path / "scans.csv", tmp_path / "out", VOLUME, SLICES)
    summary = prepare(
        tmp_path / "scans.csv", tmp_path / "out", VOLUME, SLICES, keep="slices", allow_outside=True
    )
    assert summary.num_prepared == 3


def test_the_doctor_takes_an_export(export: Path) -> None:
    found = examine(export, VOLUME, SLICES, ModelConfig())
    assert (found.num_volumes, set(found.problems)) == (3, {"E_TRUNCATED"})
    assert "W_OTHER_SERIES" in found.warnings


def test_every_header_is_read_once(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = dicom_files

    @contextmanager
    def counted(path: Path, study: str) -> Iterator[list[DicomFile]]:
        opened.append(path)
        with real(path, study) as files:
            yield files

    monkeypatch.setattr(surveying, "dicom_files", counted)
    write_worklist([export, export], tmp_path / "scans.csv")
    assert len(opened) == len(set(opened)) == 204


def test_headers_are_held_packed_and_under_new_names(export: Path, tmp_path: Path) -> None:
    found = survey([export], open_key(tmp_path / "key")[0])
    packed = sum(len(part) for parts in found.packed.values() for part in parts)
    assert packed / found.num_files < 400
    told = [
        " ".join((*one.patient, one.study, one.accession))
        for study in found.packed
        for one in found.headers(study)
    ]
    assert len(told) == 202  # without the cut file and the one that is none
    assert [word for word in PLANTED if word in " ".join(told)] == []


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("PLANTED")
    with refusal("E_KEY", "64 hexadecimal digits"):
        open_key(tmp_path / "key")
    with refusal("E_MISSING", "there is none"):
        write_worklist([tmp_path / "absent"], tmp_path / "scans.csv")
