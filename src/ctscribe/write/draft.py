"""The draft of one scan, as plain values that no model is needed to read."""

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
"""Codes of volumes that can be read but contain no chest CT to report on."""

_MIN_SD = 8.0
"""Standard deviation of grey levels; a slice of air has less, a chest 60 or more."""
_MIN_CORRELATION = 0.6
"""Of neighbouring pixels; white noise has 0, even a sharp reconstruction of a chest above 0.8."""


def why_not_assessable(frames: Frames, warnings: Collection[str]) -> str | None:
    """Why these frames must not be reported on; None where they can be.

    Args:
        frames: As the model would see them; the first channel is examined.
        warnings: Warning codes of their preparation.
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
    """Median over slices of the correlation between horizontally adjacent pixels."""
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
    """The status of one finding in a written report, by the rule labeler."""

    finding: str
    status: Literal["present", "uncertain", "absent", "not mentioned"]
    sentences: tuple[str, ...] = ()
    """The sentences that say so, verbatim."""
    probability: float | None = None
    """Calibrated, by the finding queries; None where there are none."""
    cued: bool | None = None
    """Whether the prompt stated it; None where the prompt has no cue."""

    @property
    def against_cue(self) -> bool:
        """Whether the text states it and the cue does not, or the other way round."""
        return self.cued is not None and self.cued != (self.status in ("present", "uncertain"))

    def __repr__(self) -> str:
        return f"FindingRow({self.finding!r}, {self.status}{_told(self.probability)})"


@final
@dataclass(frozen=True)
class SliceEvidence:
    """A slice that a sentence rests on."""

    number: int | None
    """Number among the report's slices, from 1; None for a slice that is not among them, which a
    plane of another encoder's grid can show."""
    slice_index: int
    position_mm: float
    box_px: tuple[int, int, int, int] | None
    """(left, top, right, bottom)."""
    box_mm: BoxMm | None = None
    """The same box in RAS+ mm; only for planes of another encoder's grid."""


@final
@dataclass(frozen=True, repr=False)
class SentenceRow:
    """One sentence of a draft, with its evidence and confidence."""

    text: str
    """Verbatim."""
    slices: tuple[SliceEvidence, ...]
    boilerplate: bool
    """Whether it rests on no particular slice."""
    drop: float
    """By how many nats its log-probability drops without these slices."""
    confidence: float | None = None
    """Calibrated probability that what it says of the 18 findings is true."""

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
    """Remarks on a draft, the gravest kinds first."""

    remarks: tuple[Remark, ...]
    unchecked: str | None = None
    """A sentence on what could not be checked; None where everything was."""

    @property
    def marks(self) -> tuple[Remark, ...]:
        """Remarks on errors in the text."""
        return tuple(remark for remark in self.remarks if not remark.is_note)

    @property
    def notes(self) -> tuple[Remark, ...]:
        """Remarks that correct drafts can have too."""
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
        study: The name the user gave, or a hash of the frames; never taken from a header.
        source_kind: Where the scan was read from.
        prepared: The scan as the model saw it; None where it could not be prepared.
        recipe: The run's.
        provenance: Version, weights, recipe and date.
        saver: See `save`.
        text: As written; empty where the scan could not be assessed.
        sentences: With evidence and confidence; those of the Findings come first.
        findings: Status of each of the 18 findings in the text.
        not_assessable: A clause that says why there is no text; None where there is one.
        finished: False where the text was cut off at the length limit.
        self_check: Remarks on the text; None where there is no text.
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
        """Hash of the frames, which identifies drafts of the same scan; None without frames."""
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

    A finding is present if any sentence affirms it, else uncertain if any hedges it, else absent if
    any denies it. Its ``sentences`` are those. ``cue`` are the findings that the prompt stated.
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
