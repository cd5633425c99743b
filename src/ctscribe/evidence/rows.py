"""``evidence.jsonl``: what each sentence of a written report rests on."""

from typing import Literal

from ctscribe.rows import Row


class PairEvidence(Row):
    """Two neighbouring slices that the tower reads as one."""

    pair: int
    """Place among the volume's pairs, from 0."""
    slice_indices: tuple[int, int]
    """z indices of the volume as prepared."""
    position_mm: tuple[float, float]
    """Superior coordinates, RAS+."""
    drop: float
    """Nats by which the sentence becomes less probable without them."""
    attention: float | None
    """Share of the finding's attention, where the sentence affirms one and there are queries."""
    box_px: tuple[int, int, int, int] | None
    """(left, top, right, bottom) of a frame, the last two exclusive; where attention is."""


class SentenceEvidence(Row):
    """A sentence with its slices, those it rests on most first."""

    section: Literal["findings", "impression"]
    text: str
    findings: tuple[str, ...]
    """That it affirms."""
    log_prob: float
    """Of its tokens given all slices, natural log."""
    num_tokens: int
    particular: bool
    """False for boilerplate, which rests on no particular slice."""
    pairs: tuple[PairEvidence, ...]


class EvidenceRow(Row):
    """One report."""

    scan_id: str
    patient_id: str
    volume_name: str
    sentences: tuple[SentenceEvidence, ...]
