"""What a draft of one scan holds: plain values, nothing that needs a model to read."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import numpy as np

from ctscribe.base.recipe import Recipe
from ctscribe.base.types import BoxMm
from ctscribe.scan.frames import PreparedVolume
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import Mention, find_mentions
from ctscribe.text.self_check import Remark

UNREADABLE = frozenset(
    {"E_NAN", "E_NOT_CT", "E_NOT_HU", "E_NO_CONTENT", "E_TOO_FEW_SLICES", "E_HU_AMBIGUOUS"}
)
"""Codes of volumes that are read but hold no chest CT to report on."""

_MIN_SD = 8.0
"""Grey levels; a slice of air alone varies by less, a chest by 60 and more."""
_MIN_CORRELATION = 0.6
"""Of neighbouring pixels; white noise has 0, sharp reconstructions of a chest more than 0.8."""


def why_not_assessable(frames: Frames, warnings: Collection[str]) -> str | None:
    """The reason why these frames must not be reported on, or None.

    Args:
        frames: As the model would see them; the first channel is judged.
        warnings: Codes of what was noticed while preparing.
    """
    if "W_NOT_CHEST" in warnings:
        return "no lungs were found, so this is no chest CT or not a whole one"
    grey = frames[..., 0].astype(np.float32)
    if float(np.median(grey.std((1, 2)))) < _MIN_SD:
        return "the slices are blank"
    if _neighbour_correlation(grey) < _MIN_CORRELATION:
        return "the slices hold noise and no anatomy"
    return None


def _neighbour_correlation(grey: np.ndarray) -> float:
    """Median over slices of the correlation of each pixel with the one to its right."""
    found = []
    for image in grey:
        first, second = image[:, :-1].ravel(), image[:, 1:].ravel()
        spread = first.std() * second.std()
        if spread > 0:
            found.append(float(np.mean((first - first.mean()) * (second - second.mean())) / spread))
    return float(np.median(found)) if found else 0.0


SourceKind = Literal["DICOM", "NIfTI", "memory"]
"""Where a scan was read from; memory: it was handed over as an array."""

SaveDraft = Callable[["Draft", Path], None]
"""Writes a draft to a file, in the format that its suffix names."""


@final
@dataclass(frozen=True, repr=False)
class FindingRow:
    """What the written report says about one finding, read off by the labeler.

    ``sentences`` are those it rests on, verbatim; ``probability`` is a label head's, if there
    is one; ``cued`` is whether the prompt told it, None where the run is told nothing.
    """

    finding: str
    status: Literal["present", "uncertain", "absent", "not mentioned"]
    sentences: tuple[str, ...] = ()
    probability: float | None = None
    cued: bool | None = None

    @property
    def against_cue(self) -> bool:
        """Whether the text leaves out or denies what it was told, or states what it was not."""
        return self.cued is not None and self.cued != (self.status in ("present", "uncertain"))

    def __repr__(self) -> str:
        return f"FindingRow({self.finding!r}, {self.status}{_told(self.probability)})"


@final
@dataclass(frozen=True)
class SliceEvidence:
    """A slice that a sentence rests on, with a box in pixels (left, top, right, bottom).

    ``number`` counts the report's slices from 1; None for a slice that is none of them, which a
    plane of another encoder's grid can show. ``box_mm`` is the box of such a plane, RAS+.
    """

    number: int | None
    slice_index: int
    position_mm: float
    box_px: tuple[int, int, int, int] | None
    box_mm: BoxMm | None = None


@final
@dataclass(frozen=True, repr=False)
class SentenceRow:
    """One sentence, what it rests on, and how sure it is.

    ``text`` is verbatim; ``confidence`` is the calibrated probability that what it says of the 18
    findings is true; ``boilerplate`` sentences rest on no particular slice; ``drop`` is how many
    nats less probable the sentence is without the slices named.
    """

    text: str
    slices: tuple[SliceEvidence, ...]
    boilerplate: bool
    drop: float
    confidence: float | None = None

    def __repr__(self) -> str:
        seen = " and ".join(
            f"{each.number or f'at {each.position_mm:.0f} mm'}" for each in self.slices
        )
        rests = f"slices {seen}" if seen else "boilerplate"
        return f"SentenceRow({self.text!r}, {rests}{_told(self.confidence)})"


def _told(probability: float | None) -> str:
    return "" if probability is None else f", {probability:.2f}"


@final
@dataclass(frozen=True)
class SelfCheck:
    """Remarks on a draft, the gravest kinds first.

    ``unchecked`` says, in a sentence, what could not be checked; None where all was.
    """

    remarks: tuple[Remark, ...]
    unchecked: str | None = None

    @property
    def marks(self) -> tuple[Remark, ...]:
        """Remarks on what is wrong somewhere."""
        return tuple(remark for remark in self.remarks if not remark.is_note)

    @property
    def notes(self) -> tuple[Remark, ...]:
        """Remarks on what is true of sound drafts too."""
        return tuple(remark for remark in self.remarks if remark.is_note)


@final
@dataclass(frozen=True)
class Provenance:
    """What made the report; ``created`` is an ISO 8601 date and time."""

    ctscribe_version: str
    model_preset: str
    weights_sha256: str
    recipe_sha256: str
    created: str


@final
@dataclass(frozen=True, repr=False)
class Draft:
    """A run's report of one scan, not verified by anybody. No patient data.

    Attributes:
        study: The name the user gave, or a hash of the voxels; never read from a header.
        source_kind: Where the scan was read from.
        prepared: The scan as the model saw it; None where it could not even be shown.
        recipe: The run's.
        provenance: What made it.
        saver: See `save`.
        text: As written; empty where the scan could not be assessed.
        sentences: Each with what it rests on, those of the Findings first; empty when unknown.
        findings: What the text says of each of the 18 findings.
        not_assessable: Why there is no text, in a clause; None for a draft with one.
        finished: False where the text ran into the length limit and ends before its end.
        self_check: What a reader should look at in the text; None where nothing was written.
    """

    study: str
    source_kind: SourceKind
    prepared: PreparedVolume | None
    recipe: Recipe
    provenance: Provenance
    saver: SaveDraft | None = None
    text: str = ""
    sentences: tuple[SentenceRow, ...] = ()
    findings: tuple[FindingRow, ...] = ()
    not_assessable: str | None = None
    finished: bool = True
    self_check: SelfCheck | None = None

    @property
    def scan_sha256(self) -> str | None:
        """Hash of the frames, by which drafts of one scan are known; None without frames."""
        if self.prepared is None:
            return None
        return hashlib.sha256(self.prepared.frames.tobytes()).hexdigest()

    def __repr__(self) -> str:
        if self.not_assessable is not None:
            return f"Draft({self.study!r}, not assessable: {self.not_assessable})"
        present = [row.finding for row in self.findings if row.status == "present"]
        return f"Draft({self.study!r}, states {', '.join(present) or 'no finding'})"

    def save(self, path: str | Path) -> None:
        """Writes the draft as a page (``.html``), text (``.txt``) or JSON (``.json``).

        Raises:
            ValueError: Where the writer was not loaded by `front.load_writer`.
        """
        if self.saver is None:
            raise ValueError("load the writer with ctscribe.load_writer to save what it writes")
        self.saver(self, Path(path))


def finding_rows(text: str, cue: Collection[str] | None = None) -> tuple[FindingRow, ...]:
    """One row per finding, in the order of `FINDINGS`.

    A finding affirmed anywhere is present; else hedged, uncertain; else denied, absent. Its
    sentences are those that say so. ``cue`` are the findings that the prompt told.
    """
    mentions = find_mentions(text)
    rows = (
        _row(finding, [mention for mention in mentions if mention.finding == finding])
        for finding in FINDINGS
    )
    return tuple(replace(row, cued=None if cue is None else row.finding in cue) for row in rows)


def _row(finding: str, mentions: list[Mention]) -> FindingRow:
    for status in ("present", "uncertain", "absent"):
        sentences = dict.fromkeys(each.sentence for each in mentions if each.status == status)
        if sentences:
            return FindingRow(finding, status, tuple(sentences))
    return FindingRow(finding, "not mentioned")
