"""Patient data planted wherever files can hold them reach no output, log or error."""

import gzip
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import pytest
from nibabel.nifti1 import Nifti1Extension
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import FileDataset
from pydicom.uid import UID
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import ModelConfig, SlicesConfig, VolumeConfig, read_recipe
from ctscribe.base.rows import SkippedRow, read_rows
from ctscribe.base.runs import open_run
from ctscribe.data.doctor import describe, examine
from ctscribe.data.prepare import prepare
from ctscribe.learn.model.decoding import Answer
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.hospital_outputs import HospitalOutputs
from ctscribe.show.report import save_report
from ctscribe.write.writer import ReportWriter
from tests.dicom import Edit, bytes_of, on_slice, slice_of
from tests.drafts import draft_of
from tests.models import tiny_model, write_run

PLANTED = "PLANTED"
BORN = "19010203"
VOLUME = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
SLICES = SlicesConfig(num_slices=4, frame_size_px=(56, 84))
Chest = Callable[..., CTVolume]

VALUES = {
    **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE", "UR"), PLANTED),
    **dict.fromkeys(("DA", "DT"), BORN),
}
"""By representation: what is planted in attributes of that kind."""
TEXT_TAGS = (
    *("PatientID", "PatientName", "PatientAddress", "PatientComments", "OtherPatientNames"),
    *("InstitutionName", "ReferringPhysicianName", "OperatorsName", "StationName"),
    *("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "StudyID"),
    *("AccessionNumber", "DeviceSerialNumber", "Manufacturer"),
)


def plant(image: FileDataset) -> None:
    for number, tag in enumerate(TEXT_TAGS):
        setattr(image, tag, f"{PLANTED} {number}")
    for tag in ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate"):
        setattr(image, tag, BORN)
    block = image.private_block(0x0009, f"{PLANTED} CREATOR", create=True)
    block.add_new(0x01, "LO", f"{PLANTED} private")
    block.add_new(0x02, "UN", f"{PLANTED} unknown".encode())
    image.add_new((0x6000, 0x4000), "LT", f"{PLANTED} overlay comment")
    image.preamble = f"{PLANTED} preamble".encode().ljust(128, b"\0")


def plant_everywhere(image: FileDataset, z: int) -> None:
    """Every attribute of the standard that holds text or a date, and numbers that may be one."""
    if z == 0:
        for tag, (vr, *_, keyword) in DicomDictionary.items():
            known = keyword in image or tag >> 16 in (0, 2, 4) or keyword == "SpecificCharacterSet"
            if vr in VALUES and keyword and not known:
                image.add_new(tag, vr, VALUES[vr])
    if z < 2:
        image.BodyPartExamined, image.ConvolutionKernel = "CHEST", f"{PLANTED} K"
    image.SeriesNumber = image.AcquisitionNumber = image.InstanceNumber = int(BORN)
    image.SliceThickness = int(BORN)


def write_series(folder: Path, chest: CTVolume, edit: Edit = lambda image, z: None) -> Path:
    folder.mkdir()
    for z in range(chest.shape_xyz[2]):
        image = slice_of(z, chest, "1.2.3456")
        plant(image)
        edit(image, z)
        (folder / f"{PLANTED}-{z}.dcm").write_bytes(bytes_of(image))
    return folder


def write_nifti(path: Path, chest: CTVolume) -> Path:
    image = nib.Nifti1Image(chest.hu, chest.affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        image.header[field] = f"{PLANTED}{field}".encode()[: image.header[field].itemsize or 10]
    image.header.extensions.append(Nifti1Extension("comment", f"{PLANTED} {BORN}".encode()))
    with path.open("wb") as file, gzip.GzipFile(f"{PLANTED}.nii", "wb", 1, file) as packed:
        packed.write(image.to_bytes())
    assert path.read_bytes().count(PLANTED.encode()) == 1  # gzip's own record of the name
    return path


def with_bad_syntax(image: FileDataset, z: int) -> None:
    image.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    image.PixelData = b"\xfe\xff\x00\xe0" + b"\0" * 4 + b"\xfe\xff\x00\xe0\x08\0\0\0" + b"PLANTED "
    image["PixelData"].VR = "OB"


FAULTS: dict[str, Edit] = {
    "modality": on_slice(None, Modality=PLANTED),
    "patients": lambda image, z: setattr(image, "PatientID", f"{PLANTED}{z % 2}"),
    "syntax": with_bad_syntax,
}


def list_scans(folder: Path, names: Iterable[str]) -> Path:
    """The manifest of these scans in the folder."""
    rows = [f"{name},P{row},S{row},Clear." for row, name in enumerate(names)]
    (folder / "scans.csv").write_text("\n".join(["volume,patient,scan,report", *rows]))
    return folder / "scans.csv"


def contents(folder: Path) -> bytes:
    """Names and bytes of all files, inflated where they are gzip."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            content = path.read_bytes()
            parts.append(content)
            parts.append(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b"")
    return b"\n".join(parts)


@pytest.fixture
def clinic(tmp_path: Path, make_chest: Chest) -> Path:
    """A manifest of own scans: sound ones, and one for each way of failing."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    chest = make_chest()
    write_series(folder / "series", chest)
    write_nifti(folder / "nifti.nii.gz", chest)
    (folder / "cut.nii.gz").write_bytes((folder / "nifti.nii.gz").read_bytes()[:-9])
    for name, edit in FAULTS.items():
        write_series(folder / name, chest, edit)
    write_series(folder / "damaged", chest)
    for path in sorted((folder / "damaged").iterdir())[:1]:
        path.write_bytes(path.read_bytes().replace(b"PLANTEDP", b"\xff\xfe\xfd\xfcPLAN", 3)[:700])
    write_series(folder / "overwritten", chest)
    for path in (folder / "overwritten").iterdir():
        content = path.read_bytes()
        for value in (rb"6.0\6.0 ", b"1.2.3456"):  # a number and an identifier
            content = content.replace(value, b"PLANTED ")
        path.write_bytes(content)
    names = ("series", "nifti.nii.gz", "cut.nii.gz", *FAULTS, "damaged", "overwritten")
    return list_scans(folder, names)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything logged or printed so far, at any level."""
    caplog.set_level(logging.DEBUG)

    def read() -> str:
        printed = capfd.readouterr()
        return caplog.text + printed.out + printed.err

    return read


def is_clean(text: str | bytes) -> bool:
    content = text.encode() if isinstance(text, str) else text
    return PLANTED.encode() not in content and BORN.encode() not in content


def test_prepare_and_doctor_pass_nothing_on(
    clinic: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    out = tmp_path / "out"
    summary = prepare(clinic, out, VOLUME, SLICES)
    assert summary.num_prepared == 2
    skipped = read_rows(out / "skipped.jsonl", SkippedRow)
    codes = ("E_TRUNCATED", "E_NOT_CT", "E_MIXED_PATIENT", "E_CODEC", "E_DICOM_TAG")
    assert {row.code for row in skipped} == set(codes)
    assert b"preprocessed_npy" in contents(out)
    assert is_clean(contents(out))
    assert is_clean(describe(examine(clinic, VOLUME, SLICES, ModelConfig())))
    assert is_clean(told())


def test_errors_and_what_caused_them(
    clinic: Path, told: Callable[[], str], recwarn: pytest.WarningsRecorder
) -> None:
    for name in (*FAULTS, "damaged", "overwritten", "cut.nii.gz"):
        with pytest.raises(CtscribeError) as caught:
            read_volume(clinic.parent / name, study="scan 1")
        assert is_clean(str(caught.value)), name
    assert is_clean(told())
    assert not recwarn.list


@pytest.mark.parametrize("name", ["series", "nifti.nii.gz"])
def test_a_report_names_nobody(
    clinic: Path,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], str],
    name: str,
) -> None:
    overrides = ("slices.frame_size_px=[56,84]", "slices.num_slices=4")
    recipe = read_recipe("tiny", (*overrides, "volume.spacing_mm=[6,6,8]"))
    run = write_run(tmp_path / "run", recipe, tiny_model(tokenizer), tokenizer)
    answer = Answer("Findings: Clear.\nImpression: Normal.", (), (), finished=True)
    monkeypatch.setattr(ReportWriter, "answers", lambda *_: [answer])
    source = (clinic.parent / name).rename(clinic.parent / f"{PLANTED}-{name}")
    save_report(ReportWriter(run).report(source), tmp_path / "report")
    written = contents(tmp_path / "report")
    assert b"Clear." in written
    assert is_clean(written)
    assert is_clean(told())


@pytest.fixture
def ward(tmp_path: Path, make_chest: Chest) -> Path:
    """Scans whose folders, neighbours and every attribute tell of their patient."""
    folder = tmp_path / "ward"
    named = folder / f"{PLANTED} {BORN}"
    named.mkdir(parents=True)
    chest = make_chest()
    write_series(named / "1", chest, plant_everywhere)
    planted = (named / "1" / f"{PLANTED}-0.dcm").read_bytes()
    assert planted.count(PLANTED.encode()) > 1000
    assert planted.count(BORN.encode()) > 100

    def as_second(image: FileDataset, z: int) -> None:
        plant_everywhere(image, z)
        image.SeriesInstanceUID = "1.2.9"

    second = write_series(named / "2", CTVolume(chest.hu[:, :, :25], chest.affine), as_second)
    for path in second.iterdir():
        path.rename(named / "1" / f"2-{path.name}")
    write_nifti(named / f"{PLANTED}.nii.gz", chest)
    (named / f"{PLANTED}.json").write_text(json.dumps({"PatientName": PLANTED, "StudyDate": BORN}))
    (named / "cut.nii.gz").write_bytes((named / f"{PLANTED}.nii.gz").read_bytes()[:3000])
    names = ("1", f"{PLANTED}.nii.gz", "cut.nii.gz", "absent.nii.gz")
    return list_scans(folder, [f"{named.name}/{name}" for name in names])


def test_every_attribute_path_and_neighbour(
    ward: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    out = tmp_path / "out"
    summary = prepare(ward, out, VOLUME, SLICES)
    assert summary.skipped_by_code == {"E_MISSING": 1, "E_TRUNCATED": 1}
    assert summary.warnings_by_code["W_OTHER_SERIES"] == 1
    record = contents(out)
    assert b'"num_slices": 25' in record, "the other series is named by what it is"
    assert b'"series_number": null' in record, "but not by a number that is a date"
    assert is_clean(record)
    assert is_clean(describe(examine(ward, VOLUME, SLICES, ModelConfig())))
    assert is_clean(told())


@pytest.mark.skipif(find_spec("highdicom") is None, reason="highdicom is not installed")
def test_documents_under_new_names_name_nobody(
    ward: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    source = ward.parent / f"{PLANTED} {BORN}" / "1"
    uids = {str(dcmread(path).SOPInstanceUID).encode() for path in source.iterdir()}
    outputs = HospitalOutputs(dicom_sr=True, fhir="R5")
    outputs.save(draft_of(source), outputs.read_source(source), tmp_path / "out")
    written = contents(tmp_path / "out")
    assert written.count(b"DICM") == 2
    assert is_clean(written)
    assert not [uid for uid in (*uids, b"1.2.3456", b"1.2.9") if uid + b"\0" in written]
    assert not [uid for uid in uids if uid in written]
    assert is_clean(told())


@pytest.mark.parametrize("with_identity", [True, False])
def test_documents_that_are_refused_name_nobody(
    clinic: Path, told: Callable[[], str], *, with_identity: bool
) -> None:
    outputs = HospitalOutputs(fhir="R5", dicom_sr=find_spec("highdicom") is not None)
    outputs = replace(outputs, with_identity=with_identity)
    said = []
    for name in ("series", *FAULTS, "damaged", "overwritten", "nifti.nii.gz"):
        try:
            outputs.read_source(clinic.parent / name)
        except CtscribeError as error:
            said.append(str(error))
    assert len(said) > 2
    assert is_clean("".join(said))
    assert is_clean(told())


def test_a_report_that_fails_names_nobody(
    ward: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    run = tmp_path / "run"
    open_run(run, "train", {"recipe": json.loads(read_recipe("tiny", ()).model_dump_json())})
    for name in ("cut.nii.gz", "absent.nii.gz"):
        with pytest.raises(CtscribeError) as caught:
            path = ward.parent / f"{PLANTED} {BORN}" / name
            save_report(ReportWriter(run).report(path), tmp_path / "report")
        assert is_clean(str(caught.value))
    assert not (tmp_path / "report").exists()
    assert is_clean(told())
