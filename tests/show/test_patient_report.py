"""The report of one patient as a page, as text and as JSON, with its evidence."""

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ctscribe import RESEARCH_USE
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.page import DrawnSlices, draw_slices, signed_mm
from ctscribe.show.patient_report import (
    INTENDED_USE,
    NOTHING_FOUND,
    SCHEMA,
    WIDTH,
    Geometry,
    PatientReport,
    evidence_of,
    report_page,
    to_json,
    to_text,
)
from ctscribe.show.viewer import ShownScan
from ctscribe.text.self_check import Remark
from ctscribe.write.draft import (
    FindingRow,
    Provenance,
    SelfCheck,
    SentenceRow,
    SliceEvidence,
)

Attributes = dict[str, str | None]
VOID = {"meta", "input", "image", "path", "rect"}
SCAN = ShownScan(
    CTVolume(
        np.random.default_rng(0).integers(-1000, 200, (40, 20, 100)).astype(np.int16),
        np.diag([0.5, 2.0, 1.0, 1.0]),
    ),
    np.array([[-0.5, 0, 0, 19.5], [0, -2.0, 0, 38.0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]),
    ((86.5, 87.5), (50.5, 51.5)),
)


def make_report(**changes: Any) -> PatientReport:  # noqa: ANN401 - any field
    """A small report with these fields replaced."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 20, 40), dtype=np.uint8)
    report = PatientReport(
        study="case 7",
        findings=("The heart is normal.", "A nodule of 6 mm is seen."),
        impression=("Nodule in the left lung.",),
        labels=(
            FindingRow("Cardiomegaly", "absent", ("The heart is normal.",)),
            FindingRow(
                "Lung nodule", "present", ("A nodule of 6 mm is seen.", "Nodule in the left lung.")
            ),
            FindingRow("Emphysema", "not mentioned"),
        ),
        model_windows=("wide 0/2000",),
        slices=DrawnSlices(
            {"lung −600/1500": images, "soft tissue 40/400": 255 - images},
            (87, 51),
            (-142.5, 12.0),
            (0.5, 2.0),
        ),
        source_kind="DICOM",
        geometry={
            "Source": Geometry((0.84, 0.84, 5.0), (512, 512, 64), "LPS"),
            "As read": Geometry((0.75, 0.75, 1.5), (573, 573, 213), "RAS"),
        },
        warnings=(),
        provenance=Provenance("0.1.0", "tiny", "a1" * 32, "b2" * 32, "2026-01-02 10:30 UTC"),
        scan=SCAN,
    )
    return replace(report, **changes)


class Page(HTMLParser):
    """Tags with their attributes, and a check that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Attributes]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def attributes(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_well_formed_and_says_what_it_must() -> None:
    text = report_page(make_report(warnings=("This may not be a chest.",)))
    page = Page(text)
    assert not page.open
    assert text.count(RESEARCH_USE) == 2
    for part in (
        "Draft written by a model, not verified",
        "This may not be a chest.",
        "z −142.5 mm",
        "slice 87",
        "lung −600/1500 HU",
        "wide 0/2000 HU",
        "0.84 × 0.84 × 5.00 mm",
        "512 × 512",
        "DICOM",
        "a1" * 32,
        "b2" * 32,
        "2026-01-02 10:30 UTC",
        *INTENDED_USE,
    ):
        assert part in text


def policy_of(page: Page) -> str:
    (policy,) = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    assert policy is not None
    return policy


@pytest.mark.parametrize("with_scan", [True, False])
def test_nothing_is_fetched_and_nothing_runs_but_the_viewer(with_scan: bool) -> None:
    text = report_page(make_report(sentences=ROWS, **({} if with_scan else {"scan": None})))
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "object", "embed", "form", "base", "video"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        href = attributes.get("href")
        assert href is None or href.startswith(("#", "data:image/png;base64,"))
    # the policy admits the style sheet, the viewer and no other
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    code = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(code) == int(with_scan)
    digests = [
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (style, *code)
    ]
    policy = policy_of(page)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digests[0]}';" in policy
    assert ("script-src" in policy) == with_scan
    assert not with_scan or f"script-src 'sha256-{digests[1]}';" in policy
    kinds = {each.get("type") for each in page.attributes("script")}
    assert kinds == ({None, "application/json", "text/plain"} if with_scan else set())
    for fetched in ("url(", "@import", "fetch(", "XMLHttpRequest", "import(", "http"):
        assert fetched not in style + "".join(code)


def test_a_page_for_mail_has_no_image_and_keeps_its_words() -> None:
    report = make_report(sentences=ROWS)
    text = report_page(replace(report, scan=None))
    page = Page(text)
    assert not {"img", "image", "canvas", "script", "button"} & {tag for tag, _ in page.tags}
    assert "data:" not in text.replace("img-src data:", "")
    assert len(text) < 60_000
    for part in (*report.findings, *report.impression, "Confidence 80 %", "Geometry"):
        assert part in text
    assert to_json(replace(report, scan=None)) == to_json(report)


def test_links_inside_the_page_have_a_target() -> None:
    page = Page(report_page(make_report()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"] for link in page.attributes("a")}
    assert targets <= {f"#{name}" for name in ids}
    assert {"#sentence-2", "#sentence-3"} <= targets


def test_images_are_lossless_and_in_slice_order() -> None:
    report = make_report()
    uris = [image["href"] for image in Page(report_page(report)).attributes("image")]
    assert report.slices is not None
    for uri, image in zip(uris, report.slices.images["lung −600/1500"], strict=True):
        assert uri is not None
        np.testing.assert_array_equal(picture(uri), image)


def test_lengths_are_true_where_pixels_are_not_square() -> None:
    # 40 columns of 0.5 mm and 20 rows of 2 mm: the view box is in millimetres
    text = report_page(make_report(sentences=ROWS))
    assert text.count('viewBox="0 0 20.0 40.0"') == 4
    # and the patient's right is on the left, beside sentences too
    assert text.count('<text x="2%" y="50%" class="from">R</text>') == 4
    assert text.count('<text x="98%" y="50%" class="to">L</text>') == 4


def test_present_findings_come_first_and_their_sentences_are_marked() -> None:
    text = report_page(make_report())
    order = [text.index(f">{name}</th>") for name in ("Lung nodule", "Cardiomegaly", "Emphysema")]
    assert order == sorted(order)
    assert '<li id="sentence-2" class="stated">A nodule of 6 mm is seen.</li>' in text
    assert '<li id="sentence-1">The heart is normal.</li>' in text


def test_probabilities_appear_only_where_given() -> None:
    assert "Probability" not in report_page(make_report())
    rows = (FindingRow("Emphysema", "present", (), 0.731), FindingRow("Atelectasis", "absent"))
    text = report_page(make_report(labels=rows))
    assert "Probability" in text
    assert '<td class="number">0.73</td>' in text
    assert '<td class="number">–</td>' in text


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}} {% raw %} ${7*7}",
    "</style><style>*{background:url(//evil)}",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_shown_not_obeyed(hostile: str) -> None:
    plain = Page(report_page(make_report())).tags
    findings = ("The heart is normal.", hostile)
    text = report_page(make_report(study=hostile, findings=findings, model_windows=(hostile,)))
    assert hostile not in text or not set(hostile) & set("<>&\"'")
    assert html.escape(hostile, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
    assert [tag for tag, _ in Page(text).tags] == [
        tag for tag, attributes in plain if attributes.get("href") not in ("#sentence-2",)
    ]


def test_characters_that_reorder_or_control_text_are_made_visible() -> None:
    text = report_page(make_report(findings=("no\u202e evil\x00\x1b[31m\u2066 \ud800",)))
    assert "no⟨U+202E⟩ evil⟨U+0000⟩⟨U+001B⟩[31m⟨U+2066⟩ ⟨U+D800⟩" in text
    text.encode()


@settings(max_examples=25)
@given(st.text(alphabet=st.characters()))
def test_no_text_changes_the_structure(sentence: str) -> None:
    page = Page(report_page(make_report(impression=(sentence,), labels=(), scan=None)))
    reference = Page(report_page(make_report(labels=(), scan=None)))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in reference.tags]


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


def test_a_thumbnail_is_its_slice_and_its_box_is_in_millimetres() -> None:
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
    ("sentence", "window"),
    [("A nodule of 6 mm.", 0), ("The heart is enlarged.", 1), ("No pleural effusion.", 1)],
)
def test_a_sentence_is_shown_in_the_window_it_is_read_in(sentence: str, window: int) -> None:
    shown = (SliceEvidence(1, 87, -142.5, None),)
    report = make_report(sentences=(SentenceRow(sentence, shown, boilerplate=False, drop=1.0),))
    assert report.slices is not None
    (drawn,) = evidence_of(report)[1].thumbnails
    np.testing.assert_array_equal(picture(drawn.uri), [*report.slices.images.values()][window][0])


def test_large_slices_become_small_pictures() -> None:
    large = np.zeros((2, 400, 600), np.uint8)
    slices = DrawnSlices({"lung": large}, (87, 51), (-142.5, 12.0), (0.5, 2.0))
    report = make_report(sentences=ROWS, slices=slices)
    assert picture(evidence_of(report)[2].thumbnails[0].uri).shape == (112, 168)


def test_the_page_tells_slices_confidence_and_boilerplate() -> None:
    text = report_page(make_report(sentences=ROWS))
    assert text.count("Boilerplate: rests on no particular slice") == 1
    assert "slice 87 · z −142.5 mm" in text
    assert "slice 51 · z 12.0 mm" in text
    assert '<rect x="2.0" y="10.0" width="4.0" height="10.0"/>' in text
    assert "Confidence 80 %" in text
    assert text.count("Confidence ") == 1
    assert 'title="Without these slices 1.2 nats less probable"' in text
    assert "Its wording depends on these slices clearly" in text
    assert "Loses 71 % of its probability" in text
    assert text.count('class="thumbnail" data-place=') == 2
    assert "Boilerplate" not in report_page(make_report())


def test_slices_are_named_with_their_slabs() -> None:
    plain = make_report(sentences=ROWS)
    assert plain.slices is not None
    report = replace(plain, slices=replace(plain.slices, slab_mm=(15.0, 12.0)))
    text = report_page(report)
    assert "<span>2 axial slices with slabs of 12 to 15 mm</span>" in text
    assert "slice 87 in a slab of 15 mm · z −142.5 mm" in text  # beside a sentence
    assert "<span>slice 51 in a slab of 12 mm · z 12.0 mm</span>" in text
    assert 'aria-label="Slice 51 in a slab of 12 mm, lung −600/1500 HU"' in text
    assert "the maximum of the slab around each slice" in text
    words = re.sub(r"(?s)<(style|script).*?</(style|script)>", "", report_page(plain))
    assert "slab" not in words
    assert to_json(report)["slices"] == [
        {"slice_index": 87, "position_mm": -142.5, "slab_mm": 15.0},
        {"slice_index": 51, "position_mm": 12.0, "slab_mm": 12.0},
    ]
    told = " ".join(to_text(report).split())
    assert "2 axial slices with slabs of 12 to 15 mm between" in told


def test_where_nothing_is_written_or_can_be_assessed_it_says_so() -> None:
    text = report_page(make_report(not_assessable="no lungs <b>were</b> found"))
    assert "Not assessable: no lungs &lt;b&gt;were&lt;/b&gt; found." in text
    assert "A nodule of 6 mm is seen." not in text
    assert "Slices of the volume" in text
    nothing = make_report(not_assessable="it is blank", slices=None, geometry={})
    assert "Slices of the volume" not in report_page(nothing)
    assert "<canvas" not in report_page(nothing)
    empty = make_report(findings=(), impression=())
    assert report_page(empty).count("Nothing was written.") == 2


def test_a_real_tumours_box_and_millimetres_agree_with_its_dicom(shared_data: Path) -> None:
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
    indices, position_mm = prepared.slice_indices, prepared.position_mm
    shown = SliceEvidence(number + 1, indices[number], position_mm[number], box)
    images = draw_slices(prepared.shown, range(40))
    report = make_report(
        sentences=(SentenceRow("Nodule.", (shown,), boilerplate=False, drop=1.0),),
        slices=DrawnSlices(images, indices, position_mm, prepared.resampling.spacing_mm[:2]),
        scan=ShownScan(
            prepared.resampling.source,
            prepared.frame_to_ras,
            tuple((index - 0.5, index + 0.5) for index in indices),
        ),
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
    assert f"z {signed_mm(position_mm[number])} mm" in report_page(report)


def test_the_dictionary_is_json_and_holds_everything_but_images() -> None:
    value = to_json(make_report(warnings=("w",)))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["schema"] == SCHEMA == "ctscribe.report/1"
    assert value["use"] == RESEARCH_USE
    assert (value["status"], value["verified"]) == ("preliminary", False)
    assert value["slices"] == [
        {"slice_index": 87, "position_mm": -142.5},
        {"slice_index": 51, "position_mm": 12.0},
    ]
    assert value["labels"][1] == {
        "finding": "Lung nodule",
        "status": "present",
        "sentences": ["A nodule of 6 mm is seen.", "Nodule in the left lung."],
        "probability": None,
        "cued": None,
        "against_cue": False,
    }
    assert value["geometry"]["Source"]["spacing_mm"] == [0.84, 0.84, 5.0]
    assert value["provenance"]["weights_sha256"] == "a1" * 32
    assert len(value["intended_use"]) == 6
    # no field has room for patient data
    assert set(value) == {
        "schema", "use", "status", "verified", "study", "findings", "impression", "labels",
        "warnings", "slices", "model_windows", "source_kind", "geometry", "provenance",
        "intended_use", "sentences", "not_assessable", "finished", "scan_sha256",
            "other_findings", "self_check", "encoder",
    }  # fmt: skip


def test_what_the_model_was_told_stands_beside_what_it_wrote() -> None:
    labels = (
        FindingRow("Emphysema", "present", (), None, True),
        FindingRow("Lung nodule", "absent", (), None, True),
        FindingRow("Atelectasis", "uncertain", (), None, False),
        FindingRow("Hiatal hernia", "not mentioned", (), None, False),
    )
    report = make_report(labels=labels)
    page = report_page(report)
    assert page.count('class="against"') == 2
    assert "yes, not stated" in page
    assert "no, stated" in page
    against = {row["finding"] for row in to_json(report)["labels"] if row["against_cue"]}
    assert against == {"Lung nodule", "Atelectasis"}
    text = " ".join(to_text(report).split())
    assert "Told before writing: Emphysema, Lung nodule." in text
    assert "does not follow in: Lung nodule, Atelectasis." in text
    untold = make_report()
    assert "Told" not in report_page(untold) + to_text(untold)


def test_the_text_holds_sections_and_warnings_within_the_width() -> None:
    long = tuple(f"Sentence {number} of the findings is here." for number in range(30))
    text = to_text(make_report(findings=long, warnings=("This may not be a chest.",)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("DRAFT WRITTEN BY A MODEL, NOT VERIFIED.")
    assert RESEARCH_USE in " ".join(text.split())
    assert "\nFINDINGS\nSentence 0 of" in text
    assert "\nIMPRESSION\nNodule in the left lung.\n" in text
    assert "Warning: This may not be a chest." in text
    assert "2 axial slices between −142.5 mm and 12.0 mm" in " ".join(text.split())


def test_a_cut_draft_says_so_before_anything_else_in_every_form() -> None:
    cut = make_report(finished=False, warnings=("Look at the scan.",))
    sentence = "Cut short: the text ran into its length limit"
    text = " ".join(to_text(cut).split())
    assert text.startswith("DRAFT WRITTEN BY A MODEL, NOT VERIFIED, CUT SHORT.")
    assert text.index(sentence) < text.index("Look at the scan.") < text.index("FINDINGS")
    page = report_page(cut)
    assert "Draft written by a model, not verified, cut short</p>" in page
    assert page.index(sentence) < page.index("Look at the scan.") < page.index("<h2>Findings")
    value = to_json(cut)
    assert value["finished"] is False
    assert value["warnings"][0].startswith(sentence)
    whole = make_report()
    assert to_json(whole)["finished"] is True
    assert "cut short" not in (report_page(whole) + to_text(whole)).lower()


def test_terminal_codes_are_not_passed_on() -> None:
    text = to_text(make_report(findings=("a\x1b[2Jb\rc\u202ed",)))
    assert "a⟨U+001B⟩[2Jb c⟨U+202E⟩d" in text


def test_what_the_18_cannot_say_is_shown_apart_from_them() -> None:
    report = make_report(findings=("Rib fractures are seen.", "No pneumothorax."))
    page = report_page(report)
    assert "Outside the 18 findings" in page
    assert to_json(report)["other_findings"] == {"Pneumothorax": "absent", "Fracture": "present"}
    assert not {"Fracture", "Pneumothorax"} & {row["finding"] for row in to_json(report)["labels"]}
    assert "Outside the 18 findings" not in report_page(make_report())


CHECK = SelfCheck(
    (
        Remark("contradiction", "It is stated and denied.", "Cardiomegaly", ("Nodule <b>.",)),
        Remark("doubted", "It leans.", "Emphysema", ("The heart is normal.",)),
    ),
    "Not held against the images.",
)


def test_the_self_check_stands_above_the_text_in_every_form() -> None:
    report = make_report(self_check=CHECK, impression=("Nodule <b>.",))
    page, text = report_page(report), " ".join(to_text(report).split())
    assert page.index("It is stated and denied.") < page.index("<h2>Findings</h2>")
    assert '<a href="#sentence-3" aria-label="Sentence 3">3</a>' in page
    # what sound drafts have too stands apart
    assert page.index("<details open>") < page.index("It leans.") < page.index("</details>")
    assert "Not held against the images." in page
    assert text.index("Stated and denied: It is stated and denied.") < text.index("FINDINGS")
    assert "Self-check. Not held against the images." in text
    assert to_json(report)["self_check"] == {
        "unchecked": "Not held against the images.",
        "remarks": [
            {
                "kind": "contradiction",
                "note": False,
                "finding": "Cardiomegaly",
                "message": "It is stated and denied.",
                "sentences": ["Nodule <b>."],
            },
            {
                "kind": "doubted",
                "note": True,
                "finding": "Emphysema",
                "message": "It leans.",
                "sentences": ["The heart is normal."],
            },
        ],
    }


def test_a_draft_without_remarks_says_that_it_was_read() -> None:
    report = make_report(self_check=SelfCheck(()))
    assert NOTHING_FOUND in report_page(report)
    assert NOTHING_FOUND in " ".join(to_text(report).split())
    assert "Self-check" not in report_page(make_report(not_assessable="it is blank"))
