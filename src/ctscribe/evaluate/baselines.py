"""Reports written without looking: what any score must be compared with.

A baseline is a training report chosen for each scan without seeing its volume. The first three
are blind; the fourth is told the true labels and shows what perfect labels alone would score.
What a label head alone would score is in `label_sentences`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float64, Int64

from ctscribe.evaluate.scans import Report
from ctscribe.types import Labels

BASELINE_RULES = {
    "constant_report": (
        "the training report which, given as the answer to every training scan, has the highest "
        "unigram F1 over all of them (medoid)"
    ),
    "all_normal": (
        "the commonest training report among those with the fewest findings; of equally common "
        "ones the medoid"
    ),
    "other_patient": "a training report of another patient, drawn with the seed",
    "label_retrieval": (
        "a training report of another patient whose labels differ least from the true ones, "
        "drawn with the seed among equals; an oracle, not blind"
    ),
}
"""Name → how the report is chosen."""


def choose_reports(
    training: Sequence[Report], references: Sequence[Report], seed: int
) -> dict[str, list[Report]]:
    """Chooses the training report that each baseline gives as the answer for each reference.

    Args:
        training: At least one report, and for every patient at least one of somebody else.
        references: The scans to answer.
        seed: Draws the last two baselines.

    Returns:
        Baseline name → one training report per reference, in order.
    """
    rng = np.random.default_rng(seed)
    return {
        "constant_report": [medoid(training)] * len(references),
        "all_normal": [normal_report(training)] * len(references),
        "other_patient": _draw(training, references, rng, by_labels=False),
        "label_retrieval": _draw(training, references, rng, by_labels=True),
    }


def medoid(reports: Sequence[Report]) -> Report:
    """The report nearest to all: the highest pooled unigram F1 when it answers every scan.

    The pooled overlap of a report with all N others is a sum over its words of how many reports
    hold the word that often, so all reports are scored in time linear in their words.
    Among equals the first by scan name.
    """
    ordered = sorted(reports, key=lambda report: report.scan_id)
    tokens = [report.text.split() for report in ordered]
    overlap = _pooled_overlap(tokens)
    lengths = np.array([len(words) for words in tokens], dtype=np.float64)
    score = overlap / np.maximum(1.0, len(tokens) * lengths + lengths.sum())
    return ordered[int(score.argmax())]


def normal_report(reports: Sequence[Report]) -> Report:
    """The commonest report among those with the fewest findings; of equals, the medoid."""
    fewest = min(sum(report.labels) for report in reports)
    normal = [report for report in reports if sum(report.labels) == fewest]
    common = Counter(report.text for report in normal)
    most = max(common.values())
    return medoid([report for report in normal if common[report.text] == most])


def _pooled_overlap(tokens: Sequence[Sequence[str]]) -> Float64[np.ndarray, "reports"]:
    # The k-th occurrence of a word in a report is an item of its own; then clipped counts are
    # set intersections, and one pass over all items is enough.
    known: dict[tuple[str, int], int] = {}
    items: list[list[int]] = []
    for words in tokens:
        seen: Counter[str] = Counter()
        row = []
        for word in words:
            seen[word] += 1
            row.append(known.setdefault((word, seen[word]), len(known)))
        items.append(row)
    flat = np.fromiter(chain.from_iterable(items), dtype=np.int64)
    holders = np.bincount(flat, minlength=len(known))
    owner = np.repeat(np.arange(len(items)), [len(row) for row in items])
    return np.bincount(owner, weights=holders[flat], minlength=len(items))


def _draw(
    training: Sequence[Report],
    references: Sequence[Report],
    rng: np.random.Generator,
    *,
    by_labels: bool,
) -> list[Report]:
    ordered = sorted(training, key=lambda report: report.scan_id)
    patients = np.array([report.patient_id for report in ordered], dtype=np.str_)
    labels = np.array([report.labels for report in ordered], dtype=np.int64)
    chosen = []
    for reference in references:
        allowed = patients != reference.patient_id
        if by_labels:
            distance = _distance(labels, reference.labels)
            allowed &= distance == distance[allowed].min()
        chosen.append(ordered[int(rng.choice(np.flatnonzero(allowed)))])
    return chosen


def _distance(
    labels: Int64[np.ndarray, "reports findings"], wanted: Labels
) -> Int64[np.ndarray, "reports"]:
    different: Int64[np.ndarray, "reports"] = (labels != np.array(wanted)).sum(axis=1)
    return different
