"""A draft report beside its scan: as one HTML page, as JSON and as text.

In: `PatientReport`, plain values and the slices as images. Out: three texts, all of which say
that a model wrote the draft and that nobody has verified it.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.types import SpacingMm
from ctscribe.show.packed_volume import pack
from ctscribe.show.page import (
    DrawnSlices,
    grey_uri,
    printable,
    render,
    signed_mm,
    window_title,
)
from ctscribe.show.viewer import (
    LUNG,
    SOFT_TISSUE,
    ShownScan,
    places_of,
    reading_window,
    slice_in,
    told_of,
    viewer_values,
)
from ctscribe.text.other_findings import find_other_findings
from ctscribe.text.polarity import Status
from ctscribe.text.self_check import KINDS
from ctscribe.write.draft import (
    FindingRow,
    Provenance,
    SelfCheck,
    SentenceRow,
    SliceEvidence,
    SourceKind,
)

SCHEMA = "ctscribe.report/1"
"""Name and version; a field changes its meaning only with the version."""

WIDTH = 88
"""Longest line, in characters."""

INTENDED_USE = {
    "Indication": "None. Drafts of chest CT reports for research on report writers.",
    "Body part": "Chest.",
    "Patient population": "Adults, in retrospective or synthetic data.",
    "User profile": "Researchers and engineers. A draft is read by a radiologist before it is "
    "used for anything.",
    "Use environment": "Research computers, outside patient care.",
    "Operating principle": "A vision-language model reads a few axial slices, or what another "
    "encoder saw of the scan, and writes text. "
    "It can miss findings, state findings that are not there, and has no access to prior scans.",
}
"""The six items of an intended-use statement, none of them a clinical claim."""

DRAFT = "Draft written by a model, not verified"

CUT_SHORT = (
    "Cut short: the text ran into its length limit (generate.max_new_tokens) and breaks off. What "
    "would have followed is missing, such as the impression."
)

NOTHING_FOUND = "By its rules the text contradicts itself nowhere."
"""Said of a draft without remarks."""

_STATUS_ORDER = ("present", "uncertain", "absent", "not mentioned")
_SIDE_PX, _SHOT_PX = 168, 120
"""Longer side of a sentence's thumbnail and of a slice in the strip of all; none is enlarged."""
PAGE_BYTES = 12_000_000
"""Largest page; the scan has what the rest leaves."""
_TEXT_BYTES = 400_000
"""For everything on a page that is not an image."""

_RELIANCE = (
    (0.3, "hardly depends on these slices"),
    (1.0, "depends on these slices in part"),
    (3.0, "depends on these slices clearly"),
    (np.inf, "depends on these slices almost wholly"),
)
"""By how many nats a sentence is less probable without its slices, in words up to each."""


@final
@dataclass(frozen=True)
class Geometry:
    """Geometry of a volume; ``orientation`` names the voxel axes' directions, e.g. ``RAS``."""

    spacing_mm: SpacingMm
    shape_xyz: tuple[int, int, int]
    orientation: str


@final
@dataclass(frozen=True)
class PatientReport:
    """A draft report with the slices it was written from. Plain values; no patient data.

    Args:
        study: Name the user gave the study, or a hash of its voxels; never read from a header.
        findings: Sentences of the Findings section, in order.
        impression: Sentences of the Impression section, in order.
        labels: One row per finding, in any order.
        model_windows: Windows in which the model saw the slices, named with centre and width.
        slices: Those it was written from; None for a volume that cannot be shown.
        source_kind: Format of the source.
        geometry: Title to geometry, e.g. the source's and the resampled volume's.
        warnings: Sentences on what the reader must know first.
        provenance: What made it.
        sentences: What each sentence rests on, first those of the Findings; empty when unknown.
        not_assessable: Why there is no report, in one sentence; None for a report.
        finished: False where the text ran into the length limit.
        self_check: Remarks on the text; None where there is none.
        scan_sha256: Of the frames; None where the volume cannot be shown.
        scan: What the page shows in three planes; None for a page without any image.
        encoder: Name of another encoder whose features the model read; None where it read slices.
    """

    study: str
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    labels: tuple[FindingRow, ...]
    model_windows: tuple[str, ...]
    slices: DrawnSlices | None
    source_kind: SourceKind
    geometry: Mapping[str, Geometry]
    warnings: tuple[str, ...]
    provenance: Provenance
    sentences: tuple[SentenceRow, ...] = ()
    not_assessable: str | None = None
    finished: bool = True
    self_check: SelfCheck | None = None
    scan_sha256: str | None = None
    scan: ShownScan | None = None
    encoder: str | None = None

    @property
    def other_findings(self) -> Mapping[str, Status]:
        """What the text says of findings outside the 18, of those it names."""
        return find_other_findings("\n".join((*self.findings, *self.impression)))

    @property
    def headline(self) -> str:
        """What stands above everything else."""
        return DRAFT if self.finished else f"{DRAFT}, cut short"

    @property
    def notices(self) -> tuple[str, ...]:
        """What the reader must know first: that the text breaks off, then the warnings."""
        return self.warnings if self.finished else (CUT_SHORT, *self.warnings)


def report_page(report: PatientReport) -> str:
    """The page: text, findings, provenance, and the scan in three planes where there is one.

    Nothing in it is fetched, and nothing runs but the viewer; texts are escaped. Lengths are true
    to the millimetre. With a scan the page takes at most `PAGE_BYTES`.
    """
    numbered = list(enumerate((*report.findings, *report.impression), 1))
    return render(
        "report.html",
        report=report,
        findings=numbered[: len(report.findings)],
        impression=numbered[len(report.findings) :],
        labels=sorted(report.labels, key=lambda row: _STATUS_ORDER.index(row.status)),
        numbers={
            row.finding: [number for number, text in numbered if text in row.sentences]
            for row in report.labels
        },
        stated={text for row in report.labels if row.status == "present" for text in row.sentences},
        with_cue=any(row.cued is not None for row in report.labels),
        with_probability=any(row.probability is not None for row in report.labels),
        intended_use=INTENDED_USE,
        remark_kinds=KINDS,
        nothing_found=NOTHING_FOUND,
        sentence_numbers={text: number for number, text in reversed(numbered)},
        **_shown(report),
    )


def _shown(report: PatientReport) -> dict[str, Any]:
    """What the page's template shows of evidence and scan."""
    rests_on = evidence_of(report)
    if report.scan is None or report.slices is None:
        return {"rests_on": rests_on, "places": {}, "viewer": None}
    scan, drawn = report.scan, report.slices
    strips = [
        (title, [_small(image, _SHOT_PX) for image in images])
        for title, images in drawn.images.items()
        if title != window_title(SOFT_TISSUE)
    ]
    shots = [uri for _, uris in strips for uri in uris]
    shots += [each.uri for found in rests_on.values() for each in found.thumbnails]
    packed = pack(scan.volume, PAGE_BYTES - _TEXT_BYTES - sum(map(len, shots)))
    rows = dict(enumerate(report.sentences, 1))
    places = places_of(scan, packed.affine, rows)
    slices = {index: slice_in(scan, packed.affine, index) for index in drawn.slice_indices}
    middle = drawn.slice_indices[len(drawn.slice_indices) // 2]
    return {
        "rests_on": rests_on,
        "places": {number: order for order, number in enumerate(places)},
        "viewer": viewer_values(packed, list(places.values()), slices[middle]),
        "slabs": [Markup(slab) for slab in packed.slabs],  # base64, nothing to escape
        "told": told_of(packed, scan.volume),
        "strips": strips,
        "slices": slices,
        "script": "viewer.js",
    }


def to_json(report: PatientReport) -> dict[str, Any]:
    """Everything but the images; texts are verbatim, positions in mm, spacings along (x, y, z)."""
    return {
        "schema": SCHEMA,
        "use": RESEARCH_USE,
        "status": "preliminary" if report.not_assessable is None else "not assessable",
        "not_assessable": report.not_assessable,
        "verified": False,
        "finished": report.finished,
        "study": report.study,
        "scan_sha256": report.scan_sha256,
        "findings": list(report.findings),
        "impression": list(report.impression),
        "sentences": [_without_text(row) for row in report.sentences],
        "labels": [
            asdict(row) | {"sentences": list(row.sentences), "against_cue": row.against_cue}
            for row in report.labels
        ],
        "self_check": _check_as_json(report.self_check),
        "other_findings": dict(report.other_findings),
        "warnings": list(report.notices),
        "slices": _places(report.slices),
        "model_windows": list(report.model_windows),
        "encoder": report.encoder,
        "source_kind": report.source_kind,
        "geometry": {
            title: {
                "spacing_mm": list(volume.spacing_mm),
                "shape_xyz": list(volume.shape_xyz),
                "orientation": volume.orientation,
            }
            for title, volume in report.geometry.items()
        },
        "provenance": asdict(report.provenance),
        "intended_use": dict(INTENDED_USE),
    }


def _check_as_json(check: SelfCheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    remarks = [
        asdict(remark) | {"sentences": list(remark.sentences), "note": remark.is_note}
        for remark in check.remarks
    ]
    return {"remarks": remarks, "unchecked": check.unchecked}


def _places(drawn: DrawnSlices | None) -> list[dict[str, Any]]:
    """Of each slice, with the thickness of its slab where it has one."""
    if drawn is None:
        return []
    places: list[dict[str, Any]] = [
        {"slice_index": index, "position_mm": mm} for index, mm in drawn.places
    ]
    slabs = [{"slab_mm": mm} for mm in drawn.slab_mm] or [{}] * len(places)
    return [place | slab for place, slab in zip(places, slabs, strict=True)]


def _without_text(row: SentenceRow) -> dict[str, Any]:
    """The words stand under findings and impression already."""
    return {name: value for name, value in asdict(row).items() if name != "text"}


def to_text(report: PatientReport) -> str:
    """The report with what must stand beside it, wrapped to `WIDTH` characters."""
    if report.not_assessable is not None:
        return _joined(
            f"NOT ASSESSABLE. {RESEARCH_USE}",
            f"Study: {report.study}",
            f"No report was written: {report.not_assessable}.",
        )
    made_by = report.provenance
    return _joined(
        f"{report.headline.upper()}. {RESEARCH_USE}",
        f"Study: {report.study}",
        *(f"Warning: {warning}" for warning in report.notices),
        *_check_lines(report.self_check),
        _headed("FINDINGS", report.findings),
        _headed("IMPRESSION", report.impression),
        *_cue_lines(report.labels),
        f"Written from {_what_was_read(report)}, by "
        f"{made_by.model_preset}, weights {made_by.weights_sha256[:12]}, ctscribe "
        f"{made_by.ctscribe_version}, {made_by.created}.",
    )


def _what_was_read(report: PatientReport) -> str:
    if report.encoder is not None:
        return f"what the encoder {printable(report.encoder)} saw of the whole scan"
    assert report.slices is not None  # a report is written from slices
    first, *_, last = (signed_mm(position) for position in report.slices.position_mm)
    return (
        f"{report.slices.counted} between {first} mm and {last} mm, seen in the window "
        f"{', '.join(report.model_windows)} HU"
    )


def _check_lines(check: SelfCheck | None) -> tuple[str, ...]:
    """What the self-check found, a paragraph for each kind."""
    if check is None:
        return ()
    told = {
        heading: " ".join(remark.message for remark in check.remarks if remark.kind == kind)
        for kind, heading in KINDS.items()
    }
    found = tuple(f"Self-check. {kind}: {said}" for kind, said in told.items() if said)
    unchecked = (f"Self-check. {check.unchecked}",) if check.unchecked else ()
    return (found or (f"Self-check. {NOTHING_FOUND}",)) + unchecked


def _cue_lines(labels: Sequence[FindingRow]) -> tuple[str, ...]:
    """What the model was told before it wrote, and where the text does not follow."""
    if all(row.cued is None for row in labels):
        return ()
    told = ", ".join(row.finding for row in labels if row.cued) or "no finding"
    against = ", ".join(row.finding for row in labels if row.against_cue)
    lines = f"Told before writing: {told}."
    return (f"{lines} The text does not follow in: {against}." if against else lines,)


@final
@dataclass(frozen=True)
class Thumbnail:
    """A slice made small; its box is in millimetres from the upper left: (x, y, width, height)."""

    slice: SliceEvidence
    uri: str
    box_mm: tuple[float, float, float, float] | None


@final
@dataclass(frozen=True)
class ShownEvidence:
    """What the page shows beside one sentence."""

    row: SentenceRow
    thumbnails: tuple[Thumbnail, ...]

    @property
    def nats(self) -> float:
        """By which the sentence is less probable without its slices, none for more probable."""
        return max(self.row.drop, 0.0)

    @property
    def reliance(self) -> str:
        """The same in words."""
        return next(words for upper, words in _RELIANCE if self.nats < upper)

    @property
    def share(self) -> float:
        """Which share of its probability the sentence loses without its slices."""
        return 1 - float(np.exp(-self.nats))


def evidence_of(report: PatientReport) -> dict[int, ShownEvidence]:
    """By sentence number from 1, where the report knows what its sentences rest on.

    A page without images has no thumbnails.
    """
    if report.slices is None:
        return {}
    found, drawn_in = {}, list(report.slices.images.values())
    for number, row in enumerate(report.sentences, 1):
        images = drawn_in[0 if reading_window(row.text) == LUNG else min(1, len(drawn_in) - 1)]
        shown = row.slices if report.scan is not None else ()
        drawn = (
            _thumbnail(each, images[each.number - 1], report.slices.pixel_spacing_mm)
            for each in shown
            if each.number is not None
        )
        found[number] = ShownEvidence(row, tuple(drawn))
    return found


def _thumbnail(
    shown: SliceEvidence,
    image: UInt8[np.ndarray, "height width"],
    pixel_spacing_mm: tuple[float, float],
) -> Thumbnail:
    across, down = pixel_spacing_mm
    box = None
    if shown.box_px is not None:
        left, top, right, bottom = shown.box_px
        box = (left * across, top * down, (right - left) * across, (bottom - top) * down)
    return Thumbnail(shown, _small(image, _SIDE_PX), box)


def _small(image: UInt8[np.ndarray, "height width"], side_px: int) -> str:
    """A PNG whose longer side is at most so long."""
    small = Image.fromarray(image)
    small.thumbnail((side_px, side_px))
    return grey_uri(np.asarray(small))


def _joined(*blocks: str) -> str:
    return "\n\n".join(block if "\n" in block else _fill(block) for block in blocks) + "\n"


def _headed(heading: str, sentences: tuple[str, ...]) -> str:
    return f"{heading}\n{_fill(' '.join(sentences))}"


def _fill(text: str) -> str:
    return textwrap.fill(printable(text), WIDTH, break_long_words=False, break_on_hyphens=False)
