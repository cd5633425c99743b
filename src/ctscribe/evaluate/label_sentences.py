"""What a label head alone would score: its findings, said in the training set's own sentences.

For each finding the sentence that most training patients share among those that affirm it and
name nothing else. A report is the commonest normal one without its sentences about what is
stated, then the sentences of what is stated; these are the impression too. No language model has
a part in it, so a report writer that does not score higher adds nothing to its own label head.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.evaluate.baselines import Pool
from ctscribe.evaluate.scans import Report, Sections, labelled_text
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import find_mentions
from ctscribe.reports.sections import split_sentences
from ctscribe.rows import ReportedRow
from ctscribe.types import Labels

RULE = (
    "the findings of the label head at 0.5, each said in the sentence that most training patients "
    "share among those that affirm it alone, after the normal report's other sentences; not blind"
)
"""How the report is put together."""

THRESHOLD = 0.5


def reports_from_labels(
    training: Sequence[Report], stated: Sequence[Labels], unseen: Sequence[str | None]
) -> list[Sections]:
    """Writes a report for each row of stated findings; see the module.

    Args:
        training: Gives the normal report and the sentences.
        stated: 18 labels per scan, as a label head found them.
        unseen: For each scan the patient whose reports are left out, if any.
    """
    pool, patients = Pool.of(training), affirming_patients(training)
    known = {
        patient: (
            pool.normal_report(pool.without(patient)),
            finding_sentences(patients, patient),
        )
        for patient in dict.fromkeys(unseen)
    }
    written: dict[tuple[str | None, Labels], Sections] = {}
    for patient, labels in zip(unseen, stated, strict=True):
        if (patient, labels) not in written:
            present = [name for name, label in zip(FINDINGS, labels, strict=True) if label]
            written[patient, labels] = _write(known[patient][0], present, known[patient][1])
    return [written[each] for each in zip(unseen, stated, strict=True)]


Affirmed = Mapping[str, Mapping[str, set[str]]]
"""Finding → sentence → the patients whose reports affirm it in this sentence, and it alone."""


def finding_sentences(affirmed: Affirmed, unseen: str | None = None) -> dict[str, str]:
    """Finding → the sentence most patients share that affirms it alone, else its name.

    Of equally common ones the first in alphabetical order; the patient ``unseen`` counts nowhere.
    """
    chosen = {}
    for name, sentences in affirmed.items():
        counts = {sentence: len(who - {unseen}) for sentence, who in sentences.items()}
        best = min(counts, key=lambda sentence: (-counts[sentence], sentence), default=name)
        chosen[name] = best if counts.get(best) else name
    return chosen


def affirming_patients(training: Sequence[Report]) -> Affirmed:
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
    return patients


def read_label_head(path: Path, studies: Sequence[ReportedRow]) -> dict[str, Labels]:
    """Reads what a label head found: scan → the 18 findings whose probability reaches 0.5.

    Args:
        path: CSV with ``VolumeName`` and the 18 findings as columns, in any order; cells are
            probabilities, or 0 and 1. Of a scan's reconstructions the first row counts.
        studies: Whose volumes may be named; other rows are passed over.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_CSV``, ``E_COLUMN``, and ``E_LABEL_HEAD`` for a cell
            outside [0, 1] or a scan without a row.
    """
    scan_of = {study.volume_name: study.scan_id for study in studies}
    found: dict[str, Labels] = {}
    for row in _rows(path):
        scan_id = scan_of.get(row["VolumeName"])
        if scan_id is not None and scan_id not in found:
            cells = [_probability(path, row, name) for name in FINDINGS]
            found[scan_id] = tuple(int(cell >= THRESHOLD) for cell in cells)
    lacking = sorted(set(scan_of.values()) - found.keys())
    if lacking:
        raise CtscribeError(
            "E_LABEL_HEAD",
            f"{path} must have a row for every scan, but lacks {len(lacking)}, the first "
            f"{lacking[0]}",
        )
    return found


def _write(normal: Report, present: Sequence[str], sentences: Mapping[str, str]) -> Sections:
    about = {
        mention.sentence
        for mention in find_mentions(labelled_text(*normal.sections))
        if mention.finding in present
    }
    kept = [sentence for sentence in split_sentences(normal.findings) if sentence not in about]
    said = list(dict.fromkeys(sentences[name] for name in present))
    impression = " ".join(map(_closed, said)) if said else normal.impression
    return " ".join(map(_closed, [*kept, *said])), impression


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [
                name for name in ("VolumeName", *FINDINGS) if name not in (reader.fieldnames or ())
            ]
            if lacking:
                raise CtscribeError(
                    "E_COLUMN",
                    f"{path} must have VolumeName and the 18 findings as columns, but lacks "
                    f"{lacking[0]}",
                )
            return list(reader)
    except FileNotFoundError as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CtscribeError("E_CSV", f"{path} must be a CSV file in UTF-8, but {error}") from error


def _probability(path: Path, row: Mapping[str, str], finding: str) -> float:
    try:
        value = float(row[finding])
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1:
        raise CtscribeError(
            "E_LABEL_HEAD",
            f"probabilities in {path} must be numbers from 0 to 1, but {finding} of "
            f"{row['VolumeName']} is {str(row[finding])[:20]!r}",
        )
    return value
