"""The best constant baselines: one report for all scans, chosen for a metric on training reports.

In: training reports. Out: for each clinical metric how many of the commonest findings to state; for
each language metric the reports that score best as the answer to all scans.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.base.types import Labels
from ctscribe.measure.clinical import clinical_scores, clinical_statistics
from ctscribe.measure.intervals import patient_index, sum_by_patient
from ctscribe.measure.language import (
    ORDERS,
    NgramCounts,
    Profile,
    bleu_scores,
    count_ngrams,
    each_language_statistics,
    language_scores,
    normalise,
)
from ctscribe.measure.scans import ScanReport
from ctscribe.text.findings import FINDINGS

NUM_CANDIDATES = 10
"""Candidates for ROUGE-L and CIDEr: so many of the best by BLEU-4, and of the commonest."""
NUM_ANSWERED = 150
"""Training reports on which the candidates are scored, drawn with the seed."""
CHOSEN_FOR = ("bleu_4", "rouge_l", "cider")
"""Language metrics that have a constant of their own."""


def best_counts(training: Sequence[ScanReport]) -> dict[str, int]:
    """Clinical metric → the number of commonest findings, 0 to 18, that maximises it if stated."""
    distinct = Counter(report.labels for report in training)
    totals = []
    for count in range(len(FINDINGS) + 1):
        stated = commonest_findings(training, count, [None]) * len(distinct)
        rows = clinical_statistics(predictions=stated, references=[*distinct])
        totals.append(np.array([*distinct.values()]) @ rows)
    return {
        metric: int(np.argmax(np.nan_to_num(values, nan=-1.0)))
        for metric, values in clinical_scores(np.stack(totals)).items()
    }


def commonest_findings(
    training: Sequence[ScanReport], count: int, left_out: Sequence[str | None]
) -> list[Labels]:
    """For each patient left out, the ``count`` commonest findings of the other training reports."""
    ids = [report.patient_id for report in training]
    number = {patient: place for place, patient in enumerate(sorted(set(ids)))}
    labels = np.array([report.labels for report in training], np.float64)
    has = sum_by_patient(labels, patient_index(ids))
    total, chosen = has.sum(axis=0), {}
    for patient in dict.fromkeys(left_out):
        own = has[number[patient]] if patient in number else 0.0
        stated = np.zeros(len(FINDINGS), int)
        stated[_commonest_first(total - own)[:count]] = 1
        chosen[patient] = tuple(stated.tolist())
    return [chosen[patient] for patient in left_out]


def _commonest_first(times: np.ndarray) -> np.ndarray:
    return np.argsort(-times, kind="stable")


def best_reports(
    training: Sequence[ScanReport], profile: Profile, seed: int
) -> dict[str, list[ScanReport]]:
    """Metric of `CHOSEN_FOR` → training reports, ranked by their score as the answer to all scans.

    BLEU-4 is computed for all reports. ROUGE-L and CIDEr are computed for `NUM_CANDIDATES`
    candidates on a sample of scans; the other reports follow in the order of BLEU-4. Of equal texts
    one report is kept, and one of another patient.
    """
    ordered = sorted(training, key=lambda report: report.scan_id)
    of_text: dict[str, list[ScanReport]] = {}
    for report in ordered:
        of_text.setdefault(report.text, []).append(report)
    first = [same[0] for same in of_text.values()]
    by_bleu = np.argsort(-_bleu_4_of_all(first, ordered, profile), kind="stable")
    by_times = np.argsort([-len(same) for same in of_text.values()], kind="stable")
    tried = np.union1d(by_bleu[:NUM_CANDIDATES], by_times[:NUM_CANDIDATES])
    drawn = np.random.default_rng(seed).permutation(len(ordered))[:NUM_ANSWERED]
    answered = [ordered[place].compared(profile) for place in drawn]
    constants = [[first[place].compared(profile)] * len(answered) for place in tried]
    totals = [rows.sum(axis=0) for rows in each_language_statistics(constants, answered, profile)]
    of_tried = language_scores(np.stack(totals))
    others = by_bleu[~np.isin(by_bleu, tried)]
    ranked = {
        name: np.concatenate([tried[np.argsort(-of_tried[name], kind="stable")], others])
        for name in CHOSEN_FOR
    } | {"bleu_4": by_bleu}
    pairs = [[same[0], *_of_another(same)] for same in of_text.values()]
    return {name: [*chain(*(pairs[place] for place in at))] for name, at in ranked.items()}


def _of_another(reports: Sequence[ScanReport]) -> list[ScanReport]:
    return [each for each in reports if each.patient_id != reports[0].patient_id][:1]


def _bleu_4_of_all(
    candidates: Sequence[ScanReport], answered: Sequence[ScanReport], profile: Profile
) -> Float64[np.ndarray, "candidates"]:
    """BLEU-4 of every candidate as the answer to all reports, in time linear in their words."""
    written, truth = (
        [
            normalise(report.compared(profile), profile, predicted=predicted).split()
            for report in reports
        ]
        for reports, predicted in ((candidates, True), (answered, False))
    )
    counts = count_ngrams(written, truth)
    guesses = [np.maximum(0, counts.written_length - order) for order in range(ORDERS)]
    matches = _matches_with_all(counts)
    lengths = np.full(len(written), counts.truth_length.sum())
    columns = [*guesses, counts.written_length]
    columns = [*matches, *(len(truth) * each for each in columns), lengths]
    return bleu_scores(np.stack(columns, axis=1, dtype=np.float64))["bleu_4"]


def _matches_with_all(counts: NgramCounts) -> list[Float64[np.ndarray, "candidates"]]:
    """Per order, clipped matches of each candidate summed over all references.

    The k-th occurrence of an n-gram matches in every reference that has it k times.
    """
    matches = []
    for of_order, truth in zip(counts.written, counts.truth, strict=True):
        written, held, total = of_order.copy(), truth.copy(), np.zeros(of_order.shape[0])
        while written.nnz:
            total += (written > 0) @ np.bincount(held.indices, minlength=held.shape[1])
            written, held = _one_fewer(written), _one_fewer(held)
        matches.append(total[counts.written_row])
    return matches


def _one_fewer(counts: Any) -> Any:  # noqa: ANN401 - a sparse matrix
    counts.data -= 1
    counts.eliminate_zeros()
    return counts
