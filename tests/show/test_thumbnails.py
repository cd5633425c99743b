import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.show.page import DrawnSlices, draw_slices, signed_mm
from ctscribe.show.patient_report import PatientReport, evidence_of, report_page
from ctscribe.write.draft import FindingRow, SentenceRow, SliceEvidence

MakeReport = Callable[..., PatientReport]
ROWS = (
    SentenceRow("The heart is normal.", (), boilerplate=True, drop=0.1, confidence=None),
    SentenceRow(
        "A nodule of 6 mm is seen.",
        (SliceEvidence(1, 87, -142.5, (4, 5, 12, 10)),),
        boilerplate=False,
        drop=1.25,
        confidence=0.8,
    ),
    SentenceRow(
        "Nodule in the left lung.",
        (SliceEvidence(2, 51, 12.0, None),),
        boilerplate=False,
        drop=0.0,
    ),
)


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_a_thumbnail_is_its_slice_and_its_box_is_in_millimetres(make_report: MakeReport) -> None:
    report = make_report(sentences=ROWS)
    assert report.slices is not None
    found = evidence_of(report)
    assert found[1].thumbnails == ()
    (shown,) = found[2].thumbnails
    # pixels of 0.5 × 2 mm
    assert shown.box_mm == (2.0, 10.0, 4.0, 10.0)
    lung = report.slices.images["lung −600/1500"]
    np.testing.assert_array_equal(picture(shown.uri), lung[0])


@pytest.mark.parametrize(
    ("finding", "window"), [("Lung nodule", 0), ("Cardiomegaly", 1), ("Pleural effusion", 1)]
)
def test_a_finding_is_shown_in_the_window_it_is_looked_for_in(
    make_report: MakeReport, finding: str, window: int
) -> None:
    labels = (FindingRow(finding, "present", ("A nodule of 6 mm is seen.",)),)
    report = make_report(sentences=ROWS, labels=labels)
    assert report.slices is not None
    (shown,) = evidence_of(report)[2].thumbnails
    np.testing.assert_array_equal(picture(shown.uri), [*report.slices.images.values()][window][0])


def test_large_slices_become_small_pictures(make_report: MakeReport) -> None:
    large = np.zeros((2, 400, 600), np.uint8)
    slices = DrawnSlices({"lung": large}, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    report = make_report(sentences=ROWS, slices=slices)
    assert picture(evidence_of(report)[2].thumbnails[0].uri).shape == (112, 168)


def test_the_page_tells_slices_confidence_and_boilerplate(make_report: MakeReport) -> None:
    text = report_page(make_report(sentences=ROWS))
    assert text.count("Boilerplate: rests on no particular slice") == 1
    assert "slice 87 · z −142.5 mm" in text
    assert "slice 51 · z 12.0 mm" in text
    assert '<rect x="2.0" y="10.0" width="4.0" height="10.0"/>' in text
    assert text.count("<rect") == 1
    assert "Confidence 80 %" in text
    assert text.count("Confidence ") == 1
    assert "Without these slices 1.2 nats less probable" in text
    assert text.count('class="thumbnail" href="#slices-') == 2
    assert "Boilerplate" not in report_page(make_report())


def test_what_cannot_be_assessed_has_a_reason_and_no_report(make_report: MakeReport) -> None:
    text = report_page(make_report(not_assessable="no lungs <b>were</b> found"))
    assert "Not assessable: no lungs &lt;b&gt;were&lt;/b&gt; found." in text
    assert "A nodule of 6 mm is seen." not in text
    assert "Slices of the volume" in text
    nothing = make_report(not_assessable="it is blank", slices=None, geometry={})
    assert "Slices of the volume" not in report_page(nothing)


def test_a_real_tumours_box_and_millimetres_agree_with_its_dicom(
    shared_data: Path, make_report: MakeReport
) -> None:
    # Boxes are in pixels of the DICOM images, numbered from the most caudal slice.
    series = shared_data / "ct/lung_dx_a0001_series"
    boxes = json.loads((shared_data / "ct/lung_dx_a0001_boxes.json").read_text())
    ((_, *pixels),) = boxes["Lung_Dx-A0001_L"]["45"]
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in series.glob("*.dcm")]
    image = sorted(slices, key=lambda each: float(each.ImagePositionPatient[2]))[45]
    x, y, z = map(float, image.ImagePositionPatient)  # LPS
    spacing = float(image.PixelSpacing[0])
    left, top, right, bottom = (spacing * pixel for pixel in pixels)
    volume = VolumeConfig(spacing_mm=(2.8, 2.8, 5.0))
    prepared = prepare_volume(series, volume, SlicesConfig(num_slices=40), study="a")
    number = int(np.argmin([abs(mm - z) for mm in prepared.position_mm]))
    assert abs(prepared.position_mm[number] - z) < 0.51 * prepared.resampling.spacing_mm[2]
    # the DICOM box in RAS+ mm, through the frames' own geometry into pixels of a frame
    corners = np.array([[-(x + left), -(y + top), z, 1], [-(x + right), -(y + bottom), z, 1]])
    found = np.rint((corners @ np.linalg.inv(prepared.frame_to_ras).T)[:, :2]).astype(int)
    box = (*found[0].tolist(), *found[1].tolist())
    assert box[0] < box[2]
    assert box[1] < box[3]
    shown = SliceEvidence(
        number + 1, prepared.slice_indices[number], prepared.position_mm[number], box
    )
    spacing_mm = prepared.resampling.spacing_mm
    images = draw_slices(prepared.shown, range(40))
    report = make_report(
        sentences=(SentenceRow("Nodule.", (shown,), boilerplate=False, drop=1.0),),
        slices=DrawnSlices(images, prepared.slice_indices, prepared.position_mm, spacing_mm[:2]),
    )
    (thumbnail,) = evidence_of(report)[1].thumbnails
    assert thumbnail.box_mm is not None
    _, _, width, height = thumbnail.box_mm
    assert width == pytest.approx(right - left, abs=3)
    assert height == pytest.approx(bottom - top, abs=3)
    # what the box frames is the tumour: soft tissue on the reader's right, where the left lung is
    drawn = images["soft tissue 40/400"][number]
    rows, columns = slice(box[1] + 2, box[3] - 2), slice(box[0] + 2, box[2] - 2)
    assert box[0] > drawn.shape[1] / 2
    assert 90 < np.median(drawn[rows, columns]) < 170
    assert np.median(drawn[rows][:, ::-1][:, columns]) == 0
    assert f"z {signed_mm(prepared.position_mm[number])} mm" in report_page(report)
