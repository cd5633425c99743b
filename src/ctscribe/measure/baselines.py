"""Reports written without looking: what any score must be compared with.

In: the references, training reports where there are any, and what a label head found. Out: for
each reference what every baseline writes. Four give a training report chosen without the volume;
three of them are blind, the fourth is told the true labels and shows what perfect labels alone
would score. The fifth puts a label head's findings into stock sentences. Without training
reports the references take their place, and each patient is answered from those of all others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import ReportedRow
from ctscribe.base.types import Labels
from ctscribe.measure.pool import Pool
from ctscribe.measure.scans import ScanReport, Sections, labelled_text
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions
from ctscribe.text.report_tables import read_probabilities
from ctscribe.text.sections import split_sentences

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
    "label_sentences": (
        "the findings of the label head at 0.5, each said in the sentence that most training "
        "patients share among those that affirm it alone, after the normal report's other "
        "sentences; not blind"
    ),
}
"""Name → how the report is made."""

LEAVE_ONE_OUT = (
    "no training reports were given, so the references themselves serve as such, for each scan "
    "without those of its own patient"
)
"""What must be said of baselines without a training set."""


def write_baselines(
    training: Sequence[ScanReport] | None,
    references: Sequence[ScanReport],
    seed: int,
    stated: Mapping[str, Labels] | None = None,
) -> dict[str, list[Sections]]:
    """What each baseline writes for each reference.

    Args:
        training: At least one report, and for every patient at least one of somebody else; None
            takes for each reference the references of all other patients.
        references: The scans to answer.
        seed: Draws ``other_patient`` and ``label_retrieval``.
        stated: Scan → what a label head found; without, there are no ``label_sentences``.

    Returns:
        Baseline → one report per reference, in order.
    """
    written = {
        name: [report.sections for report in chosen]
        for name, chosen in choose_reports(training, references, seed).items()
    }
    if stated is not None:
        written["label_sentences"] = reports_from_labels(
            references if training is None else training,
            [stated[report.scan_id] for report in references],
            _patients_left_out(training, references),
        )
    return written


def rules_of(baselines: Iterable[str], *, leave_one_out: bool) -> dict[str, str]:
    """How the reports of these baselines are made, in words."""
    told = f"; {LEAVE_ONE_OUT}" if leave_one_out else ""
    there = set(baselines)
    return {name: rule + told for name, rule in BASELINE_RULES.items() if name in there}


def choose_reports(
    training: Sequence[ScanReport] | None, references: Sequence[ScanReport], seed: int
) -> dict[str, list[ScanReport]]:
    """Chooses the report that each of the first four baselines gives for each reference.

    The arguments are those of `write_baselines`.
    """
    rng = np.random.default_rng(seed)
    pool = Pool.of(references if training is None else training)
    left_out = _patients_left_out(training, references)
    return {
        "constant_report": pool.medoids(left_out),
        "all_normal": pool.normal_reports(left_out),
        "other_patient": pool.draw(references, rng, by_labels=False),
        "label_retrieval": pool.draw(references, rng, by_labels=True),
    }


def _patients_left_out(
    training: Sequence[ScanReport] | None, references: Sequence[ScanReport]
) -> list[str | None]:
    """For each reference the patient whose reports a baseline must not know, if there is one."""
    return [reference.patient_id if training is None else None for reference in references]


def reports_from_labels(
    training: Sequence[ScanReport], stated: Sequence[Labels], left_out: Sequence[str | None]
) -> list[Sections]:
    """Writes a report for each row of stated findings; see `BASELINE_RULES`.

    Args:
        training: Gives the normal report and the sentences.
        stated: 18 labels per scan, as a label head found them.
        left_out: For each scan the patient whose reports are not known, if any.
    """
    patients, distinct = affirming_patients(training), [*dict.fromkeys(left_out)]
    normal = zip(distinct, Pool.of(training).normal_reports(distinct), strict=True)
    known = {name: (report, finding_sentences(patients, name)) for name, report in normal}
    written: dict[tuple[str | None, Labels], Sections] = {}
    for patient, labels in zip(left_out, stated, strict=True):
        if (patient, labels) not in written:
            present = [name for name, label in zip(FINDINGS, labels, strict=True) if label]
            written[patient, labels] = _in_sentences(present, *known[patient])
    return [written[each] for each in zip(left_out, stated, strict=True)]


Affirmed = Mapping[str, Mapping[str, set[str]]]
"""Finding → sentence → the patients whose reports affirm it in this sentence, and it alone.

The sentences most patients share come first, of equally common ones in alphabetical order.
"""


def affirming_patients(training: Sequence[ScanReport]) -> Affirmed:
    """Reads who affirms what in which sentence."""
    patients: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in FINDINGS}
    for report in training:
        affirmed: dict[str, set[str]] = defaultdict(set)
        for mention in find_mentions(labelled_text(*report.sections)):
            named = mention.finding if mention.status == "present" else ""
            affirmed[mention.sentence].add(named)
        for sentence, names in affirmed.items():
            if len(names) == 1 and "" not in names:
                patients[next(iter(names))][sentence].add(report.patient_id)
    return {
        name: dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
        for name, found in patients.items()
    }


def finding_sentences(affirmed: Affirmed, left_out: str | None = None) -> dict[str, str]:
    """Finding → the sentence most patients share that affirms it alone, else its name.

    Of equally common ones the first in alphabetical order; the patient ``left_out`` counts
    nowhere.
    """
    chosen = {}
    for name, sentences in affirmed.items():
        best, most = name, 0
        for sentence, who in sentences.items():
            count = len(who) - (left_out in who)
            if (-count, sentence) < (-most, best) if most else count:
                best, most = sentence, count
            if left_out not in who:
                break  # those that follow are no commoner without the patient
        chosen[name] = best
    return chosen


def _in_sentences(
    present: Sequence[str], normal: ScanReport, sentences: Mapping[str, str]
) -> Sections:
    about = {sentence for finding, sentence in _named(normal) if finding in present}
    kept = [sentence for sentence in split_sentences(normal.findings) if sentence not in about]
    said = list(dict.fromkeys(sentences[name] for name in present))
    impression = " ".join(map(_closed, said)) if said else normal.impression
    return " ".join(map(_closed, [*kept, *said])), impression


@lru_cache(maxsize=1 << 10)
def _named(report: ScanReport) -> tuple[tuple[str, str], ...]:
    """Findings with the sentences that name them; most patients share one normal report."""
    mentions = find_mentions(labelled_text(*report.sections))
    return tuple((mention.finding, mention.sentence) for mention in mentions)


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


Probabilities = Mapping[str, Sequence[float]]
"""Scan → a label head's probability of each of the 18 findings."""


def read_label_head(path: Path, studies: Sequence[ReportedRow]) -> Probabilities:
    """Reads a label head's probabilities of every scan.

    Args:
        path: CSV with ``VolumeName`` and the 18 findings as columns, in any order; cells are
            probabilities, or 0 and 1. Of a scan's reconstructions the first row counts.
        studies: Whose volumes may be named; other rows are passed over.

    Raises:
        CtscribeError: As `read_csv`, ``E_DUPLICATE``, and ``E_LABEL_HEAD`` for a cell
            outside [0, 1] or a scan without a row.
    """
    scan_of = {study.volume_name: study.scan_id for study in studies}
    found: dict[str, Sequence[float]] = {}
    for name, probabilities in read_probabilities(path).items():
        if name in scan_of:
            found.setdefault(scan_of[name], probabilities)
    lacking = sorted(set(scan_of.values()) - found.keys())
    if lacking:
        raise CtscribeError(
            "E_LABEL_HEAD",
            f"{path} must have a row for every scan, but lacks {len(lacking)}, the first "
            f"{lacking[0]}",
        )
    return found


def stated_by(label_head: Probabilities) -> dict[str, Labels]:
    """Scan → the 18 findings whose probability reaches 0.5."""
    return {
        scan_id: tuple(int(probability >= 0.5) for probability in probabilities)
        for scan_id, probabilities in label_head.items()
    }
