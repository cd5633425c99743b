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
from PIL import Image

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.types import SpacingMm
from ctscribe.show.page import DrawnSlices, grey_uri, printable, render, signed_mm
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
    "Operating principle": "A vision-language model reads a few axial slices and writes text. "
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
_SIDE_PX = 168
"""Longer side of a thumbnail; larger images are made smaller, none larger."""

_IN_SOFT_TISSUE = frozenset(
    {
        "Arterial wall calcification",
        "Cardiomegaly",
        "Coronary artery wall calcification",
        "Hiatal hernia",
        "Lymphadenopathy",
        "Medical material",
        "Pericardial effusion",
        "Pleural effusion",
    }
)
"""Findings that are looked for in the second of the reading windows."""


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
    """The page: text, slices with millimetres and orientation, findings, provenance.

    Nothing in it is fetched or executed; texts are escaped. Lengths are true to
    their ``pixel_spacing_mm``, also where pixels are not square.
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
        rests_on=evidence_of(report),
        intended_use=INTENDED_USE,
        remark_kinds=KINDS,
        nothing_found=NOTHING_FOUND,
        sentence_numbers={text: number for number, text in reversed(numbered)},
    )


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
    assert report.slices is not None  # a report is written from slices
    made_by = report.provenance
    places = [signed_mm(position) for position in report.slices.position_mm]
    return _joined(
        f"{report.headline.upper()}. {RESEARCH_USE}",
        f"Study: {report.study}",
        *(f"Warning: {warning}" for warning in report.notices),
        *_check_lines(report.self_check),
        _headed("FINDINGS", report.findings),
        _headed("IMPRESSION", report.impression),
        *_cue_lines(report.labels),
        f"Written from {report.slices.counted} between {places[0]} mm and "
        f"{places[-1]} mm, seen in the window {', '.join(report.model_windows)} HU, by "
        f"{made_by.model_preset}, weights {made_by.weights_sha256[:12]}, ctscribe "
        f"{made_by.ctscribe_version}, {made_by.created}.",
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


def evidence_of(report: PatientReport) -> dict[int, ShownEvidence]:
    """By sentence number from 1, where the report knows what its sentences rest on."""
    if report.slices is None:
        return {}
    texts = (*report.findings, *report.impression)
    stated = {
        sentence: int(row.finding in _IN_SOFT_TISSUE)
        for row in report.labels
        if row.status == "present"
        for sentence in row.sentences
    }
    windows = list(report.slices.images.values())
    found = {}
    for number, (text, row) in enumerate(zip(texts, report.sentences, strict=False), 1):
        images = windows[min(stated.get(text, 0), len(windows) - 1)]
        drawn = tuple(
            _thumbnail(each, images[each.number - 1], report.slices.pixel_spacing_mm)
            for each in row.slices
        )
        found[number] = ShownEvidence(row, drawn)
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
    small = Image.fromarray(image)
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    return Thumbnail(shown, grey_uri(np.asarray(small)), box)


def _joined(*blocks: str) -> str:
    return "\n\n".join(block if "\n" in block else _fill(block) for block in blocks) + "\n"


def _headed(heading: str, sentences: tuple[str, ...]) -> str:
    return f"{heading}\n{_fill(' '.join(sentences))}"


def _fill(text: str) -> str:
    return textwrap.fill(printable(text), WIDTH, break_long_words=False, break_on_hyphens=False)
