"""Baselines: reports written without looking at the scan, which any score must be compared with.

In: the references, training reports where there are any, and a label head's findings. Out: the
report of every baseline for each reference.

Blind baselines are constants (among them the best constant for each metric), a report of another
patient, and the report of the patient most similar in age, sex and scanner. Two baselines are not
blind: one retrieves by the true labels and shows what perfect labels alone would score; the other
puts a label head's findings into stock sentences. Without training reports the references serve as
such, and each patient gets a report of the others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import ReportedRow
from ctscribe.base.types import Labels
from ctscribe.measure.constants import best_counts, best_reports, commonest_findings
from ctscribe.measure.language import Profile
from ctscribe.measure.pool import Pool
from ctscribe.measure.same_header import find_alike
from ctscribe.measure.scans import Answers, LabelSource, ScanReport, Sections, labelled_text
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
    "same_header": (
        "the training report of the other patient who is most alike by {header}, drawn with the "
        "seed among equals"
    ),
    "label_retrieval": (
        "a training report of another patient whose labels differ least from the true ones, "
        "drawn with the seed among equals; an oracle, not blind"
    ),
    "label_sentences": (
        "the findings of the label head at 0.5, each said in the sentence that most training "
        "patients share among those that affirm it alone, after the normal report's other "
        "sentences; not blind"
    ),
    "commonest": (
        "the {count} commonest findings of the training reports, for every scan, said as "
        "label_sentences says them; of all 0 to 18 the best on the training reports for {metrics}"
    ),
    "best": (
        "the training report that as the answer to all training scans is the best for {metrics}"
    ),
}
"""Name of a baseline, or its prefix → how its report is made."""

NO_HEADER = "left out: neither age, sex nor manufacturer is known of both"

SIGHTED = frozenset({"label_retrieval", "label_sentences"})
"""Baselines that know the true labels or see the scan, and so are not blind."""

LEAVE_ONE_OUT = (
    "no training reports were given, so the references themselves serve as such, for each scan "
    "without those of its own patient"
)
"""Note on baselines without a training set."""


@final
@dataclass(frozen=True)
class Baseline:
    """One baseline's reports, in the order of the references."""

    rule: str
    sections: Sequence[Sections]
    labels: Sequence[Labels] | None = None
    """Its stated findings, where they are known without a labeler."""

    def answers(self, source: LabelSource) -> Answers:
        """The reports with their stated findings, as `Answers`."""
        labels = self.labels or source.labels([labelled_text(*each) for each in self.sections])
        return Answers(tuple(self.sections), tuple(labels))


def write_baselines(
    training: Sequence[ScanReport] | None,
    references: Sequence[ScanReport],
    seed: int,
    stated: Mapping[str, Labels] | None = None,
    profile: Profile = "ctrate-raw",
) -> dict[str, Baseline]:
    """The reports of every baseline for each reference.

    Args:
        training: At least one report, and for every patient at least one of another. None uses, for
            each reference, the references of all other patients; only the choice of the best
            constants is then made on all references.
        references: The scans to answer.
        seed: For the draws of ``other_patient``, ``same_header`` and ``label_retrieval``.
        stated: Scan → a label head's findings; without, there is no ``label_sentences``.
        profile: Text profile by which the best constants are chosen.

    Returns:
        The baselines of `BASELINE_RULES`. There is one constant per choice, such as ``commonest_9``
        and ``best_bleu_4``, named by its number or by the first metric that it is the best for.
    """
    known = references if training is None else training
    left_out = _patients_left_out(training, references)
    chosen = choose_reports(training, references, seed)
    written = {
        name: Baseline(BASELINE_RULES[name], [report.sections for report in reports])
        for name, reports in chosen.items()
    }
    header, alike = find_alike(known, references, np.random.default_rng(seed))
    if header:
        rule = BASELINE_RULES["same_header"].format(header=", ".join(header))
        written["same_header"] = Baseline(rule, [report.sections for report in alike])
    stock = _Stock(known, left_out)
    written |= _commonest(known, stock) | _best(known, left_out, profile, seed)
    if stated is not None:
        labels = [stated[report.scan_id] for report in references]
        written["label_sentences"] = Baseline(BASELINE_RULES["label_sentences"], stock.say(labels))
    return {name: written[name] for name in sorted(written, key=_place)}


def _place(name: str) -> int:
    """Sort key: blind baselines first, constants next to each other."""
    order = ("constant_report", "all_normal", "best", "commonest", "other", "same", "label")
    return next(place for place, start in enumerate(order) if name.startswith(start))


def _commonest(known: Sequence[ScanReport], stock: "_Stock") -> dict[str, Baseline]:
    """For each clinical metric the baseline that states the best number of commonest findings."""
    best_for: dict[int, list[str]] = defaultdict(list)
    for metric, count in best_counts(known).items():
        best_for[count].append(metric)
    written = {}
    for count, metrics in sorted(best_for.items()):
        labels = commonest_findings(known, count, stock.left_out)
        rule = BASELINE_RULES["commonest"].format(count=count, metrics=", ".join(metrics))
        written[f"commonest_{count}"] = Baseline(rule, stock.say(labels), labels)
    return written


def _best(
    known: Sequence[ScanReport], left_out: Sequence[str | None], profile: Profile, seed: int
) -> dict[str, Baseline]:
    """For each language metric the best constant report, of another patient."""
    best_for: dict[tuple[Sections, ...], list[str]] = defaultdict(list)
    for metric, ranked in best_reports(known, profile, seed).items():
        of_patient = {
            patient: next(report.sections for report in ranked if report.patient_id != patient)
            for patient in dict.fromkeys(left_out)
        }
        best_for[tuple(of_patient[patient] for patient in left_out)].append(metric)
    return {
        f"best_{metrics[0]}": Baseline(
            BASELINE_RULES["best"].format(metrics=", ".join(metrics)), sections
        )
        for sections, metrics in best_for.items()
    }


def rules_of(baselines: Mapping[str, Baseline], *, leave_one_out: bool) -> dict[str, str]:
    """The rule of each baseline in words; for ``same_header`` also where it is left out."""
    told = f"; {LEAVE_ONE_OUT}" if leave_one_out else ""
    return {
        name: rule + told
        for name, rule in {
            "same_header": NO_HEADER,
            **{name: baseline.rule for name, baseline in baselines.items()},
        }.items()
    }


def strongest_blind(baselines: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Metric → the blind baseline with the highest score."""
    strongest: dict[str, str] = {}
    for name, scores in baselines.items():
        for metric, score in scores.items():
            if name in SIGHTED or score["value"] is None:
                continue
            best = strongest.setdefault(metric, name)
            if score["value"] > baselines[best][metric]["value"]:
                strongest[metric] = name
    return strongest


def choose_reports(
    training: Sequence[ScanReport] | None, references: Sequence[ScanReport], seed: int
) -> dict[str, list[ScanReport]]:
    """The reports of the baselines that choose one training report per reference.

    Arguments as for `write_baselines`.
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
    """For each reference the patient whose reports must not be used; None with training reports."""
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
    return _Stock(training, left_out).say(stated)


@final
class _Stock:
    """The normal report and the stock sentences, made without the reports of one patient each."""

    def __init__(self, training: Sequence[ScanReport], left_out: Sequence[str | None]) -> None:
        self.left_out = left_out
        patients, distinct = affirming_patients(training), [*dict.fromkeys(left_out)]
        normal = zip(distinct, Pool.of(training).normal_reports(distinct), strict=True)
        self._known = {name: (report, finding_sentences(patients, name)) for name, report in normal}

    def say(self, stated: Sequence[Labels]) -> list[Sections]:
        """A report for each row of stated findings, in the order of ``left_out``."""
        written: dict[tuple[str | None, Labels], Sections] = {}
        for patient, labels in zip(self.left_out, stated, strict=True):
            if (patient, labels) not in written:
                present = tuple(name for name, label in zip(FINDINGS, labels, strict=True) if label)
                written[patient, labels] = _in_sentences(present, *self._known[patient])
        return [written[each] for each in zip(self.left_out, stated, strict=True)]


Affirmed = Mapping[str, Mapping[str, set[str]]]
"""Finding → sentence → the patients whose reports affirm it in this sentence, and it alone.

The sentences most patients share come first, of equally common ones in alphabetical order.
"""


def affirming_patients(training: Sequence[ScanReport]) -> Affirmed:
    """Collects the sentences that affirm one finding alone, and the patients who have them."""
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
    present: tuple[str, ...], normal: ScanReport, sentences: Mapping[str, str]
) -> Sections:
    said = list(dict.fromkeys(sentences[name] for name in present))
    impression = " ".join(map(_closed, said)) if said else normal.impression
    return " ".join(map(_closed, [*_kept(normal, present), *said])), impression


@lru_cache(maxsize=1 << 12)
def _kept(normal: ScanReport, present: tuple[str, ...]) -> list[str]:
    """Sentences of the normal report that do not contradict these findings."""
    about = {sentence for finding, sentence in _named(normal) if finding in present}
    return [sentence for sentence in split_sentences(normal.findings) if sentence not in about]


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
