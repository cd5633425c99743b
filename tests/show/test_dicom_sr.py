"""Drafts as structured reports, read back by pydicom, by highdicom and by dciodvfy."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from ctscribe import RESEARCH_USE
from ctscribe.scan.source_images import read_source_series
from ctscribe.show.report import report_of
from ctscribe.text.findings import FINDINGS
from ctscribe.write.draft import Draft
from tests.dicom import Edit, bytes_of, enhanced_of, write_series
from tests.drafts import IDENTITY, PLACE, draft_of, with_block, with_identity
from tests.refusals import refusal

pytest.importorskip("highdicom", reason="highdicom, which writes them, is not installed")

from highdicom.sr import srread

from ctscribe.show.dicom_sr import dicom_documents

BONE = 2000
"""Stored value above which only the block lies."""
HALF_STEP_MM = 2.5 + 1e-3


def turned(image: FileDataset, z: int) -> None:
    """Lays the whole series askew: 20 degrees about left, then 15 about superior."""
    with_identity(image, z)
    a, b = np.radians(20), np.radians(15)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turn = about_z @ about_x
    for tag in ("ImagePositionPatient", "ImageOrientationPatient"):
        vectors = np.array(image[tag].value, float).reshape(-1, 3) @ turn.T
        setattr(image, tag, vectors.ravel().round(9).tolist())


def tilted(image: FileDataset, z: int) -> None:
    """As a gantry does that leans by 11 degrees."""
    with_identity(image, z)
    x, y, height = image.ImagePositionPatient
    image.ImagePositionPatient = [x, y + z, height]


def alone(image: FileDataset, z: int) -> None:
    """Each slice a series of its own, as some who remove names leave it."""
    with_identity(image, z)
    image.SeriesInstanceUID = f"1.2.3.{z + 1}"


KINDS: dict[str, Edit | None] = {
    "axial": with_identity,
    "oblique": turned,
    "tilted": tilted,
    "joined": alone,
    "enhanced": None,
}


def write_source(folder: Path, kind: str = "axial") -> Path:
    edit = KINDS[kind]
    if edit is not None:
        return write_series(folder, edit, volume=with_block())
    folder.mkdir()
    image = enhanced_of(with_block())
    with_identity(image, 0)
    (folder / "all.dcm").write_bytes(bytes_of(image))
    return folder


def documents(draft: Draft, source: Path, *, with_identity: bool = True) -> dict[str, bytes]:
    images = read_source_series(source, "the scan", with_identity=with_identity)
    return dicom_documents(draft, report_of(draft), images)


def read(content: bytes) -> FileDataset:
    return pydicom.dcmread(BytesIO(content))


def below(item: Dataset) -> Iterator[Dataset]:
    """All content items, each before what it holds."""
    for each in item.get("ContentSequence", ()):
        yield each
        yield from below(each)


def name_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def test_the_text_is_a_tree_of_sections_and_sentences(source: Path) -> None:
    document = read(documents(draft_of(source), source)["report.dcm"])
    assert document.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    told = (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag)
    assert told == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert "Not a medical device." in document.SeriesDescription
    sections = [each for each in document.ContentSequence if each.ValueType == "CONTAINER"]
    texts = {name_of(part): [each.TextValue for each in part.ContentSequence] for part in sections}
    assert [*texts] == ["Current Procedure Descriptions", "Findings", "Impressions"]
    assert RESEARCH_USE in texts["Current Procedure Descriptions"][0]
    assert "Study: case 7" in texts["Current Procedure Descriptions"]
    assert texts["Findings"] == [
        "A nodule of 12 mm is seen in the right upper lobe.",
        "No pleural effusion.",
        "Emphysema cannot be excluded.",
    ]
    assert texts["Impressions"] == ["Nodule in the right lung."]
    observer = {name_of(each): each for each in document.ContentSequence if each not in sections}
    assert observer["Observer Type"].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert observer["Device Observer Name"].TextValue == "ctscribe 0.2.0"
    sure = [each for each in below(document) if each.ValueType == "NUM"]
    assert [name_of(each) for each in sure] == ["Certainty of Finding"] * 3 + [
        "Certainty of Impression"
    ]
    assert {float(each.MeasuredValueSequence[0].NumericValue) for each in sure} == {75.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_boxes_lie_on_the_block_in_pixels_and_in_millimetres(
    tmp_path: Path, kind: str, *, named: bool
) -> None:
    source = write_source(tmp_path / "source", kind)
    made = documents(draft_of(source), source, with_identity=named)
    files = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    by_uid = {str(one.SOPInstanceUID): one for one in files}
    outlines, planes = [], []
    for item in below(read(made["report.dcm"])):
        if item.ValueType != "SCOORD":
            continue
        (image,) = item.ContentSequence
        (reference,) = image.ReferencedSOPSequence
        assert reference.ReferencedSOPClassUID == files[0].SOPClassUID
        pixels = np.array(item.GraphicData).reshape(-1, 2)
        outlines.append(pixels)
        if named:
            found = by_uid[reference.ReferencedSOPInstanceUID]
            planes.append(_in_space(found, reference, pixels))
            _check_block_inside(found, reference, pixels)
        else:
            assert reference.ReferencedSOPInstanceUID not in by_uid
    assert len(outlines) == 2  # one of the findings, one of the impression
    groups = srread(BytesIO(made["measurements.dcm"])).content.get_planar_roi_measurement_groups()
    assert len(groups) == 1, "both sentences rest on one box"
    region = groups[0].roi
    assert region.value.shape == (5, 3)
    assert (region.frame_of_reference_uid == PLACE) is named
    for corners, normal in planes:
        aside = region.value - corners
        along = aside @ normal
        assert np.abs(along).max() <= HALF_STEP_MM
        np.testing.assert_allclose(aside - along[:, None] * normal, 0, atol=1e-3)
    width, height = (float(each.value) for each in groups[0].get_measurements())
    sides = np.linalg.norm(np.diff(region.value[:3], axis=0), axis=1)
    np.testing.assert_allclose((width, height), sides, atol=1e-3)
    np.testing.assert_allclose((width, height), (24, 12), atol=8.1)  # two pixels of the grid


def _frame(image: FileDataset, reference: Dataset) -> tuple[Dataset, np.ndarray]:
    """Where an image or one of its frames says that it lies, and its pixels."""
    if "ReferencedFrameNumber" not in reference:
        return image, image.pixel_array
    number = int(reference.ReferencedFrameNumber) - 1
    own, shared = image.PerFrameFunctionalGroupsSequence, image.SharedFunctionalGroupsSequence[0]
    place = Dataset()
    place.ImagePositionPatient = own[number].PlanePositionSequence[0].ImagePositionPatient
    place.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    place.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    return place, image.pixel_array[number]


def _in_space(
    image: FileDataset, reference: Dataset, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Corners in LPS mm by PS3.3 C.7.6.2.1, and the normal of their plane."""
    place, _ = _frame(image, reference)
    row, column = np.array(place.ImageOrientationPatient, float).reshape(2, 3)
    down_mm, across_mm = map(float, place.PixelSpacing)
    across, down = (pixels - 0.5).T
    corners = (
        np.array(place.ImagePositionPatient, float)
        + across[:, None] * across_mm * row
        + down[:, None] * down_mm * column
    )
    return corners, np.cross(row, column)


def _check_block_inside(image: FileDataset, reference: Dataset, pixels: np.ndarray) -> None:
    _, stored = _frame(image, reference)
    rows, columns = np.nonzero(stored > BONE)
    assert len(rows), "the image that is referred to shows the block"
    low, high = pixels.min(0), pixels.max(0)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose((*low, *high), edges, atol=2.1)  # a pixel of the grid is two of it


def test_every_finding_is_measured_and_only_stated_ones_are_named(source: Path) -> None:
    draft = draft_of(source)
    document = srread(BytesIO(documents(draft, source)["measurements.dcm"]))
    assert document.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    told = (document.PreliminaryFlag, document.VerificationFlag)
    assert told == ("PRELIMINARY", "UNVERIFIED")
    assert document.ContentQualification == "RESEARCH"
    groups = document.content.get_image_measurement_groups()
    by_finding = {}
    for group in groups:
        measured = {each.name.meaning: each for each in group.get_measurements()}
        (status,) = group.get_qualitative_evaluations()
        by_finding[group.tracking_identifier] = group, status.value.meaning, measured
    assert tuple(by_finding) == FINDINGS
    expected = {"Lung nodule": "Present", "Pleural effusion": "Absent", "Emphysema": "Undetermined"}
    for row in draft.findings:
        group, status, measured = by_finding[row.finding]
        assert status == expected.get(row.finding, "Not mentioned in the text")
        probability = measured["Calibrated probability that the finding is present"]
        assert row.probability is not None
        assert probability.value == pytest.approx(100 * row.probability, abs=0.01)
        assert (probability.unit.value, probability.unit.scheme_designator) == ("%", "UCUM")
        assert (group.finding_type is not None) == (row.status == "present")
    nodule, _, measured = by_finding["Lung nodule"]
    assert (nodule.finding_type.value, nodule.finding_type.scheme_designator) == ("27925004", "SCT")
    assert (measured["Diameter"].value, measured["Diameter"].unit.value) == (12.0, "mm")
    (site,) = nodule.finding_sites
    assert (site.value.meaning, site.laterality.meaning) == ("Lung", "Right")
    assert len(nodule.source_images) == 1


def test_all_source_images_are_evidence(source: Path) -> None:
    files = [pydicom.dcmread(path) for path in source.iterdir()]
    expected = {
        (str(one.StudyInstanceUID), str(one.SeriesInstanceUID), str(one.SOPInstanceUID))
        for one in files
    }
    for content in documents(draft_of(source), source).values():
        document = srread(BytesIO(content))
        assert {tuple(map(str, each[:3])) for each in document.get_evidence()} == expected
        assert {keyword: str(document.get(keyword)) for keyword in IDENTITY} == IDENTITY
        assert "PatientIdentityRemoved" not in document


def test_new_names_follow_from_the_voxels_alone(tmp_path: Path) -> None:
    def other(image: FileDataset, z: int) -> None:
        with_identity(image, z)
        image.PatientID, image.StudyInstanceUID = "PLANTED-OTHER", "1.2.999"
        image.SOPInstanceUID = UID(f"1.2.998.{z + 1}")
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID

    first = write_source(tmp_path / "first")
    second = write_series(tmp_path / "second", other, volume=with_block(), series="1.2.77")
    made = [documents(draft_of(each), each, with_identity=False) for each in (first, second)]
    assert made[0] == made[1]
    document = read(made[0]["report.dcm"])
    assert document.PatientIdentityRemoved == "YES"
    assert document.PatientID.startswith("scan-")
    assert (document.PatientName, document.PatientBirthDate, document.StudyDate) == ("", "", "")


@pytest.mark.parametrize("named", [True, False])
def test_the_same_draft_gives_the_same_bytes(source: Path, *, named: bool) -> None:
    draft = draft_of(source)
    first = documents(draft, source, with_identity=named)
    assert documents(draft, source, with_identity=named) == first
    document = read(first["report.dcm"])
    assert (document.ContentDate, document.ContentTime) == ("20260102", "103000")
    later = replace(draft.provenance, created="2026-01-02 10:31 UTC")
    again = documents(replace(draft, provenance=later), source, with_identity=named)
    assert read(again["report.dcm"]).SOPInstanceUID != document.SOPInstanceUID


def test_hostile_text_comes_back_whole_and_obeys_nobody(source: Path) -> None:
    words = "çok büyük nodül görüldü \\ <script>{{7*7}}</script> & 肺结节 " * 1500
    text = f"Findings: A nodule\x07\x1b[31m is \u202eseen\ud800. {words}.\nImpression: Nodule."
    assert len(words.encode()) > 1 << 16
    document = read(documents(draft_of(source, text), source)["report.dcm"])
    assert document.SpecificCharacterSet == "ISO_IR 192"
    texts = [each.TextValue for each in below(document) if each.ValueType == "TEXT"]
    assert any(words.strip() in each for each in texts)
    assert not any(sign in each for each in texts for sign in "\x07\x1b\u202e\ud800")
    assert any("⟨U+0007⟩⟨U+001B⟩" in each for each in texts)


@pytest.mark.parametrize(
    ("change", "flag", "told"),
    [
        ({"finished": False}, "PARTIAL", "Cut short"),
        ({"text": "", "sentences": (), "findings": ()}, "COMPLETE", "The model wrote nothing."),
        (
            {"text": "", "sentences": (), "findings": (), "not_assessable": "the slices are blank"},
            "PARTIAL",
            "Not assessable: the slices are blank. No report was written.",
        ),
        ({"sentences": ()}, "COMPLETE", "Study: case 7"),
    ],
)
def test_what_is_not_whole_says_so(
    source: Path, change: dict[str, object], flag: str, told: str
) -> None:
    draft = replace(draft_of(source), **change)  # type: ignore[arg-type]
    made = documents(draft, source)
    assert ("measurements.dcm" in made) == bool(draft.findings)
    assert {read(content).CompletionFlag for content in made.values()} == {flag}
    texts = [each.TextValue for each in below(read(made["report.dcm"])) if "TextValue" in each]
    assert any(told in each for each in texts)


def test_a_scan_that_could_not_be_shown_is_refused(source: Path) -> None:
    draft = replace(draft_of(source), prepared=None, not_assessable="values are no HU")
    with refusal("E_NO_IMAGES", "values are no HU"):
        documents(draft, source)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not here")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_dciodvfy_finds_no_error(tmp_path: Path, kind: str, *, named: bool) -> None:
    source = write_source(tmp_path / "source", kind)
    for name, content in documents(draft_of(source), source, with_identity=named).items():
        (tmp_path / name).write_bytes(content)
        found = subprocess.run(
            ["dciodvfy", tmp_path / name], capture_output=True, text=True, check=False
        )
        lines = (found.stdout + found.stderr).splitlines()
        assert any("SR" in line for line in lines), "it knows the kind of document"
        assert [line for line in lines if line.startswith("Error")] == []
