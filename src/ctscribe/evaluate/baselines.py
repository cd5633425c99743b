"""Reports written without looking: what any score must be compared with.

A baseline is a training report chosen for each scan without seeing its volume. The first three
are blind; the fourth is told the true labels and shows what perfect labels alone would score.
What a label head alone would score is in `label_sentences`. Without training reports the
references take their place, and each patient is answered from those of all others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import final

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import csr_matrix

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

LEAVE_ONE_OUT = (
    "no training reports were given, so the references themselves serve as such, for each scan "
    "without those of its own patient"
)
"""What must be said of baselines without a training set."""


def choose_reports(
    training: Sequence[Report] | None, references: Sequence[Report], seed: int
) -> dict[str, list[Report]]:
    """Chooses the training report that each baseline gives as the answer for each reference.

    Args:
        training: At least one report, and for every patient at least one of somebody else; None
            takes for each reference the references of all other patients.
        references: The scans to answer.
        seed: Draws the last two baselines.

    Returns:
        Baseline name → one training report per reference, in order.
    """
    rng = np.random.default_rng(seed)
    pool = Pool.of(references if training is None else training)
    unseen = unseen_patients(training, references)
    blind = {
        patient: (pool.medoid(among), pool.normal_report(among))
        for patient, among in ((each, pool.without(each)) for each in dict.fromkeys(unseen))
    }
    return {
        "constant_report": [blind[patient][0] for patient in unseen],
        "all_normal": [blind[patient][1] for patient in unseen],
        "other_patient": _draw(pool, references, rng, by_labels=False),
        "label_retrieval": _draw(pool, references, rng, by_labels=True),
    }


def unseen_patients(
    training: Sequence[Report] | None, references: Sequence[Report]
) -> list[str | None]:
    """For each reference the patient whose reports a baseline must not know, if there is one."""
    return [reference.patient_id if training is None else None for reference in references]


def medoid(reports: Sequence[Report]) -> Report:
    """The report nearest to all: the highest pooled unigram F1 when it answers every scan."""
    pool = Pool.of(reports)
    return pool.medoid(pool.without(None))


def normal_report(reports: Sequence[Report]) -> Report:
    """The commonest report among those with the fewest findings; of equals, the medoid."""
    pool = Pool.of(reports)
    return pool.normal_report(pool.without(None))


@final
@dataclass(frozen=True)
class Pool:
    """Reports to choose from, counted once, so that many choices among them are cheap.

    Attributes:
        reports: Ordered by scan.
        patients: Of each report.
        labels: Of each report.
        words: Whether a report has an item: the k-th occurrence of a word is an item of its own,
            so that clipped counts are set intersections.
        lengths: Number of words.
        texts: Number of each report's text; equal texts share it.
    """

    reports: tuple[Report, ...]
    patients: np.ndarray
    labels: Int64[np.ndarray, "reports findings"]
    words: csr_matrix
    lengths: Int64[np.ndarray, "reports"]
    texts: Int64[np.ndarray, "reports"]

    @classmethod
    def of(cls, reports: Sequence[Report]) -> "Pool":
        """Counts the words of at least one report."""
        ordered = sorted(reports, key=lambda report: report.scan_id)
        tokens = [report.text.split() for report in ordered]
        return cls(
            tuple(ordered),
            np.array([report.patient_id for report in ordered], dtype=np.str_),
            np.array([report.labels for report in ordered], dtype=np.int64),
            _items(tokens),
            np.array([len(words) for words in tokens], dtype=np.int64),
            np.unique([report.text for report in ordered], return_inverse=True)[1],
        )

    def without(self, patient_id: str | None) -> Bool[np.ndarray, "reports"]:
        """Which reports are of other patients; all for None."""
        return (
            np.ones(len(self.reports), bool) if patient_id is None else self.patients != patient_id
        )

    def medoid(self, among: Bool[np.ndarray, "reports"]) -> Report:
        """The one with the highest pooled unigram F1 as the answer to all ``among`` them.

        The pooled overlap of a report with the others is a sum over its items of how many
        reports hold the item, so all are scored in time linear in their words. Of equals the
        first by scan name.
        """
        holders = self.words.T @ among.astype(np.int64)
        overlap = self.words @ holders
        total = int(self.lengths[among].sum())
        score = overlap / np.maximum(1, int(among.sum()) * self.lengths + total)
        return self.reports[int(np.where(among, score, -1.0).argmax())]

    def normal_report(self, among: Bool[np.ndarray, "reports"]) -> Report:
        """The commonest ``among`` those of them with the fewest findings; of equals, the medoid."""
        findings = self.labels.sum(axis=1)
        normal = among & (findings == findings[among].min())
        common = np.bincount(self.texts[normal], minlength=len(self.reports))[self.texts]
        return self.medoid(normal & (common == common[normal].max()))


def _items(tokens: Sequence[Sequence[str]]) -> csr_matrix:
    known: dict[tuple[str, int], int] = {}
    items: list[list[int]] = []
    for words in tokens:
        seen: Counter[str] = Counter()
        row = []
        for word in words:
            seen[word] += 1
            row.append(known.setdefault((word, seen[word]), len(known)))
        items.append(row)
    columns = np.fromiter(chain.from_iterable(items), dtype=np.int64)
    starts = np.cumsum([0, *map(len, items)])
    shape = (len(items), max(1, len(known)))
    return csr_matrix((np.ones(len(columns), dtype=np.int64), columns, starts), shape=shape)


def _draw(
    pool: Pool, references: Sequence[Report], rng: np.random.Generator, *, by_labels: bool
) -> list[Report]:
    chosen = []
    for reference in references:
        allowed = pool.without(reference.patient_id)
        if by_labels:
            distance = _distance(pool.labels, reference.labels)
            allowed &= distance == distance[allowed].min()
        chosen.append(pool.reports[int(rng.choice(np.flatnonzero(allowed)))])
    return chosen


def _distance(
    labels: Int64[np.ndarray, "reports findings"], wanted: Labels
) -> Int64[np.ndarray, "reports"]:
    different: Int64[np.ndarray, "reports"] = (labels != np.array(wanted)).sum(axis=1)
    return different
