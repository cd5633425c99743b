"""The scan on a page, driven in Debian's Chromium as a reader drives it; and what it is told."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ctscribe.base.recipe import SlicesConfig, VolumeConfig, read_recipe
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.frames import PreparedVolume, frames_of_lungs
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.packed_volume import pack
from ctscribe.show.patient_report import PAGE_BYTES
from ctscribe.show.report import save_draft
from ctscribe.show.viewer import reading_window, told_of
from ctscribe.write.draft import Draft, Provenance, SentenceRow, SliceEvidence, finding_rows
from tests.scans import chest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium")
NODULE, HEART = "A nodule of 6 mm is seen.", "The heart is enlarged."
FIRST, SECOND = 3, 5
BOX_PX = (20, 30, 44, 50)
PLANES = (("Axial", 0, 1), ("Coronal", 0, 2), ("Sagittal", 1, 2))
"""With the axes that run across and down."""


def save_page(prepared: PreparedVolume, path: Path) -> Path:
    """A page of two sentences with boxes and one that rests on nothing."""
    made_by = Provenance("0", "tiny", "a" * 64, "b" * 64, "2026-01-02 10:30 UTC")
    text = f"Findings: {NODULE} {HEART} Impression: No pleural effusion."

    def row(sentence: str, *numbers: int) -> SentenceRow:
        indices, position_mm = prepared.slice_indices, prepared.position_mm
        slices = (SliceEvidence(n, indices[n - 1], position_mm[n - 1], BOX_PX) for n in numbers)
        return SentenceRow(sentence, tuple(slices), boilerplate=not numbers, drop=1.5)

    rows = (
        row(NODULE, FIRST, FIRST + 1),
        row(HEART, SECOND, SECOND + 1),
        row("No pleural effusion."),
    )
    recipe, found = read_recipe("tiny"), finding_rows(text)
    draft = Draft("case", "NIfTI", prepared, recipe, made_by, None, text, rows, found)
    save_draft(draft, path)
    return path


def oblique() -> PreparedVolume:
    """A chest of coarse voxels that is turned by 12 degrees about two axes."""
    volume = chest((64, 56, 40), (6.0, 6.0, 8.0))
    c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    affine = volume.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    return frames_of_lungs(
        CTVolume(volume.hu, affine), VolumeConfig(spacing_mm=(6, 6, 8)), SlicesConfig(num_slices=6)
    )


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedVolume, Path]:
    prepared = oblique()
    return prepared, save_page(prepared, tmp_path_factory.mktemp("page") / "report.html")


class Reader:
    """Who reads a page, and everything that the page asks of the network or complains of."""

    def __init__(self, browser: "Browser", path: Path, **options: Any) -> None:  # noqa: ANN401
        self.asked: list[str] = []
        self.complaints: list[str] = []
        context = browser.new_context(offline=True, **options)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".viewer[data-loaded]", state="attached")
        self.settle()

    def _hear(self, message: "ConsoleMessage") -> None:
        if message.type == "error":  # such as a refusal by the page's policy
            self.complaints.append(message.text)

    def settle(self) -> None:
        self.page.evaluate(
            "new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))"
        )

    def told(self, name: str) -> np.ndarray:
        self.settle()
        text = self.page.get_attribute(".viewer", f"data-{name}")
        assert text is not None
        return np.array([float(part) for part in text.split()])

    def window(self) -> str:
        self.settle()
        return self.page.inner_text(".grey").split(" −")[0].split(" 4")[0].split(" 0")[0]

    def click(self, plane: str, across: float, down: float) -> tuple[float, float]:
        """At a share of the plane's width and height, which are returned in pixels."""
        canvas = self.page.locator(f"canvas[aria-label='{plane} slice']")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": across * box["width"], "y": down * box["height"]})
        return box["width"], box["height"]

    def shade(self, plane: str, column: int, row: int) -> int:
        self.settle()
        script = """(canvas, [x, y]) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[0]"""
        canvas = self.page.locator(f"canvas[aria-label='{plane} slice']")
        return int(canvas.evaluate(script, [column, row]))


@pytest.fixture
def reader(browser: "Browser", saved: tuple[PreparedVolume, Path]) -> Iterator[Reader]:
    found = Reader(browser, saved[1], viewport={"width": 1400, "height": 1000})
    yield found
    assert found.complaints == []
    assert found.asked == [saved[1].as_uri()]  # nothing but the file itself
    found.page.context.close()


def check_planes(reader: Reader, volume: CTVolume) -> None:
    """Clicks in each plane; voxel and millimetres must be the point's, in all three planes."""
    shape = np.array(volume.shape_xyz)
    for plane, across, down in PLANES:
        sides = reader.click(plane, 0.37, 0.42)
        voxel, mm = reader.told("voxel").astype(int), reader.told("mm")
        np.testing.assert_allclose(mm, (volume.affine @ [*voxel, 1])[:3], atol=0.001)
        # right, anterior and superior have the highest index and stand first
        for axis, share, side in zip((across, down), (0.37, 0.42), sides, strict=True):
            a_pixel = shape[axis] / side
            assert abs((1 - share) * shape[axis] - 0.5 - voxel[axis]) <= 0.5 + a_pixel
        # all three planes show this voxel's own density where their lines cross
        shade = (float(volume.hu[tuple(voxel)]) + 1350) * 255 / 1500
        for name, x, y in PLANES:
            column, row = (int(shape[axis] - 1 - voxel[axis]) for axis in (x, y))
            assert abs(reader.shade(name, column, row) - np.clip(shade, 0, 255)) <= 0.51


def test_three_planes_agree_with_an_oblique_affine(
    reader: Reader, saved: tuple[PreparedVolume, Path]
) -> None:
    check_planes(reader, saved[0].resampling.source)
    assert "turned by 17 degrees" in reader.page.inner_text(".viewer .note")


def test_three_planes_agree_with_a_real_scans_affine(
    browser: "Browser", shared_data: Path, tmp_path: Path
) -> None:
    knobs = VolumeConfig(spacing_mm=(2.8, 2.8, 5.0)), SlicesConfig(num_slices=6)
    series = shared_data / "ct/lung_dx_a0001_series"
    prepared = prepare_volume(series, *knobs, study="a")
    source = prepared.resampling.source
    kept = CTVolume(
        source.hu[:, :, 20:36],
        source.affine @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 20], [0, 0, 0, 1]]),
    )  # few enough slices to be kept to the bit
    path = save_page(frames_of_lungs(kept, *knobs), tmp_path / "report.html")
    assert path.stat().st_size <= PAGE_BYTES
    found = Reader(browser, path, viewport={"width": 1400, "height": 1000})
    check_planes(found, kept)
    assert found.complaints == []


def test_keys_wheel_and_drags_move_and_window(reader: Reader) -> None:
    axial = reader.page.locator("canvas[aria-label='Axial slice']")
    z = reader.told("voxel")[2]
    axial.focus()
    for key, step in (("ArrowUp", 1), ("ArrowLeft", -1), ("PageUp", 10), ("ArrowDown", -1)):
        reader.page.keyboard.press(key)
        z += step
        assert reader.told("voxel")[2] == z
    reader.page.keyboard.press("Home")
    assert reader.told("voxel")[2] == 0
    assert axial.get_attribute("aria-valuenow") == "0"
    reader.page.keyboard.press("End")
    assert reader.told("voxel")[2] == 39
    axial.hover()
    reader.page.mouse.wheel(0, 100)  # towards the feet
    assert reader.told("voxel")[2] == 38
    for key, name in zip("1234", ("lung", "soft tissue", "bone", "wide"), strict=True):
        reader.page.keyboard.press(key)
        assert reader.window() == name
    before = reader.page.inner_text(".grey")
    reader.page.mouse.down()
    reader.page.mouse.move(900, 400, steps=3)
    reader.page.mouse.up()
    assert reader.window().startswith("own")
    assert reader.page.inner_text(".grey") != before
    assert reader.told("voxel")[2] == 38
    reader.page.uncheck(".keys")
    reader.page.keyboard.press("1")
    assert reader.window().startswith("own")


def test_a_finger_scrolls(browser: "Browser", saved: tuple[PreparedVolume, Path]) -> None:
    phone = {"width": 400, "height": 800}
    found = Reader(browser, saved[1], viewport=phone, has_touch=True, is_mobile=True)
    z = found.told("voxel")[2]
    drag = """canvas => ["down", "move", "up"].forEach((kind, i) => canvas.dispatchEvent(
        new PointerEvent("pointer" + kind, {pointerType: "touch", pointerId: 1, bubbles: true,
                                           clientX: 50, clientY: 50 + 60 * Math.min(i, 1)})))"""
    canvas = found.page.locator("canvas[aria-label='Axial slice']")
    canvas.evaluate("canvas => { canvas.setPointerCapture = () => {}; }")
    canvas.evaluate(drag)
    assert found.told("voxel")[2] < z
    assert found.window() == "lung"
    # nothing is wider than the phone, and a sentence brings the scan to the reader
    assert found.page.evaluate("document.documentElement.scrollWidth") == 400
    found.page.click("#sentence-1 .sentence")
    assert found.page.is_visible("dialog[open] .viewer")
    assert found.complaints == []


def test_a_sentence_opens_its_slice_box_and_window(
    reader: Reader, saved: tuple[PreparedVolume, Path]
) -> None:
    prepared, page = saved[0], reader.page
    volume = prepared.resampling.source
    length = page.evaluate("history.length")
    for number, first, window in ((1, FIRST, "lung"), (2, SECOND, "soft tissue")):
        page.click(f"#sentence-{number} .sentence")
        voxel = reader.told("voxel")
        left, top, right, bottom = BOX_PX
        index = prepared.slice_indices[first - 1]
        middle = [(left + right - 1) / 2, (top + bottom - 1) / 2, index, 1.0]
        wanted = np.linalg.inv(volume.affine) @ prepared.frame_to_ras @ middle
        assert np.abs(voxel - wanted[:3]).max() <= 0.51
        assert reader.window() == window
        # in all planes, and its edges are the box's in millimetres
        boxes = page.locator(f".box.selected[data-sentence='{number}']")
        assert boxes.count() == 3
        canvas, box = page.locator("canvas[aria-label='Axial slice']"), boxes.first
        outer, inner = canvas.bounding_box(), box.bounding_box()
        assert outer is not None
        assert inner is not None
        width = inner["width"] / outer["width"] * volume.shape_xyz[0]
        assert width == pytest.approx(right - left, abs=0.5)
        assert page.get_attribute(f"#sentence-{number} .sentence", "aria-pressed") == "true"
    # the same place lists it, enlarged it stays, and Esc closes and then clears
    assert HEART in page.inner_text(".viewer .here")
    page.click(".enlarge")
    assert page.locator("dialog[open] .box.selected").count() == 3
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator(".box.selected").count() == 3
    page.keyboard.press("Escape")
    reader.settle()
    assert page.locator(".box.selected").count() == 0
    page.click("td.links a >> nth=0")
    assert page.evaluate("history.length") == length


def test_a_place_lists_the_sentences_that_rest_on_it(reader: Reader) -> None:
    reader.page.click("#sentence-1 .sentence")
    reader.settle()
    assert NODULE in reader.page.inner_text(".viewer .here")
    assert reader.page.locator("#sentence-1.here").count() == 1
    reader.click("Axial", 0.97, 0.97)
    reader.settle()
    assert "No sentence rests on this place." in reader.page.inner_text(".viewer .here")
    reader.page.click(".shots button >> nth=4")  # far below, so the scan comes enlarged
    reader.page.keyboard.press("Escape")
    reader.settle()
    reader.page.click("#sentence-2 .sentence")
    reader.page.click(".viewer .here ol button")
    assert reader.page.get_attribute("#sentence-2 .sentence", "aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_axe_finds_no_serious_fault(
    browser: "Browser", saved: tuple[PreparedVolume, Path], width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    size = {"width": width, "height": 900}
    found = Reader(browser, saved[1], viewport=size, color_scheme=scheme)
    for enlarged in (False, True):
        if enlarged:
            found.page.click(".enlarge")
        violations = axe.run(found.page).response["violations"]
        assert [
            each["id"] for each in violations if each["impact"] in ("serious", "critical")
        ] == []


@pytest.mark.parametrize(
    ("sentence", "window"),
    [
        ("No pleural effusion.", "soft tissue"),
        ("Mediastinal lymph nodes are enlarged.", "soft tissue"),
        ("Heart size is normal.", "soft tissue"),
        ("Emphysema is seen in both lungs.", "lung"),
        ("Fibrotic sequelae in the right apex.", "lung"),
        ("A rib fracture is seen.", "bone"),
        ("Vertebral heights are preserved.", "bone"),
        ("Thyroid is natural.", "soft tissue"),
        ("Trachea is open.", "lung"),
    ],
)
def test_each_sentence_has_the_window_it_is_read_in(sentence: str, window: str) -> None:
    assert reading_window(sentence).name == window


def test_what_the_page_lost_is_told() -> None:
    volume = chest((64, 56, 40), (6.0, 6.0, 8.0))
    assert told_of(pack(volume, 10**8), volume) == ()
    (sentence,) = told_of(pack(volume, 40_000), volume)
    assert re.search(r"differ from the scan's by [0-9]+ HU", sentence)


def test_a_real_scan_of_the_shared_data_is_straight(shared_data: Path) -> None:
    volume, _ = read_volume(shared_data / "ct/Lung_Dx-A0001_L_3mm.nii.gz", study="a")
    assert told_of(pack(volume, 10**8), volume) == ()
