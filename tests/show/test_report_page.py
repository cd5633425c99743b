import base64
import hashlib
import html
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ctscribe.base.about import RESEARCH_USE
from ctscribe.show.patient_report import INTENDED_USE, PatientReport, report_page
from ctscribe.write.draft import FindingRow

MakeReport = Callable[..., PatientReport]
Attributes = dict[str, str | None]
VOID = {"meta", "input", "image", "path"}


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


def test_the_page_is_well_formed_and_says_what_it_must(make_report: MakeReport) -> None:
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


def test_nothing_is_fetched_and_nothing_runs(make_report: MakeReport) -> None:
    page = Page(report_page(make_report()))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "video"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        href = attributes.get("href")
        assert href is None or href.startswith(("#", "data:image/png;base64,"))


def test_the_policy_admits_the_style_sheet_and_no_other(make_report: MakeReport) -> None:
    text = report_page(make_report())
    page = Page(text)
    (policy,) = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_have_a_target(make_report: MakeReport) -> None:
    page = Page(report_page(make_report()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"] for link in page.attributes("a")}
    assert targets <= {f"#{name}" for name in ids}
    assert {"#sentence-2", "#sentence-3", "#slices-1", "#slices-2"} <= targets


def test_images_are_lossless_and_in_slice_order(make_report: MakeReport) -> None:
    report = make_report()
    uris = [image["href"] for image in Page(report_page(report)).attributes("image")]
    assert report.slices is not None
    windows = report.slices.images.values()
    expected = [images[index] for index in range(2) for images in windows]
    assert len(uris) == 4
    for uri, image in zip(uris, expected, strict=True):
        assert uri is not None
        content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)


def test_lengths_are_true_where_pixels_are_not_square(make_report: MakeReport) -> None:
    # 40 columns of 0.5 mm and 20 rows of 2 mm: the view box is in millimetres, so is the bar.
    text = report_page(make_report())
    assert text.count('viewBox="0 0 20.0 40.0"') == 4
    assert text.count(" h 50") == 4
    assert text.count(">50 mm</text>") == 4


def test_the_patients_right_is_on_the_left(make_report: MakeReport) -> None:
    text = report_page(make_report())
    assert text.count('<text x="2%" y="50%" class="from">R</text>') == 4
    assert text.count('<text x="98%" y="50%" class="to">L</text>') == 4
    assert text.count('<text x="50%" y="2%" class="top">A</text>') == 4


def test_present_findings_come_first_and_their_sentences_are_marked(
    make_report: MakeReport,
) -> None:
    text = report_page(make_report())
    order = [text.index(f">{name}</th>") for name in ("Lung nodule", "Cardiomegaly", "Emphysema")]
    assert order == sorted(order)
    assert '<li id="sentence-2" class="stated">A nodule of 6 mm is seen.</li>' in text
    assert '<li id="sentence-1">The heart is normal.</li>' in text


def test_probabilities_appear_only_where_given(make_report: MakeReport) -> None:
    assert "Probability" not in report_page(make_report())
    rows = (FindingRow("Emphysema", "present", (), 0.731), FindingRow("Atelectasis", "absent"))
    text = report_page(make_report(labels=rows))
    assert "Probability" in text
    assert '<td class="number">0.73</td>' in text
    assert '<td class="number">–</td>' in text


def test_an_empty_report_says_so(make_report: MakeReport) -> None:
    text = report_page(make_report(findings=(), impression=()))
    assert text.count("Nothing was written.") == 2


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}} {% raw %} ${7*7}",
    "</style><style>*{background:url(//evil)}",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_shown_not_obeyed(make_report: MakeReport, hostile: str) -> None:
    plain = Page(report_page(make_report())).tags
    text = report_page(
        make_report(
            study=hostile,
            findings=("The heart is normal.", hostile),
            model_windows=(hostile,),
        )
    )
    assert hostile not in text or not set(hostile) & set("<>&\"'")
    assert html.escape(hostile, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
    assert [tag for tag, _ in Page(text).tags] == [
        tag for tag, attributes in plain if attributes.get("href") not in ("#sentence-2",)
    ]


def test_characters_that_reorder_or_control_text_are_made_visible(
    make_report: MakeReport,
) -> None:
    text = report_page(make_report(findings=("no\u202e evil\x00\x1b[31m\u2066 \ud800",)))
    assert "no⟨U+202E⟩ evil⟨U+0000⟩⟨U+001B⟩[31m⟨U+2066⟩ ⟨U+D800⟩" in text
    text.encode()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters()))
def test_no_text_changes_the_structure(make_report: MakeReport, sentence: str) -> None:
    page = Page(report_page(make_report(impression=(sentence,), labels=())))
    reference = Page(report_page(make_report(labels=())))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in reference.tags]
