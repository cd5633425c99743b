"""Predictions of any format, put to the studies they were written for.

In: our JSONL, a CSV of reports, JSON or JSONL of other tools, or CT2Rep's files. Out:
rows of the studies; or the same reports in another of these formats.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_text
from ctscribe.base.outside_text import without_special_tokens
from ctscribe.base.rows import (
    PredictionRow,
    ReportedRow,
    line_of,
    read_lines,
    read_rows,
    write_rows,
)
from ctscribe.base.tables import format_csv
from ctscribe.base.types import PredictionFormat
from ctscribe.data.ct_rate import VolumeName, parse_volume_name
from ctscribe.measure.ct2rep import format_ct2rep, name_by_truth, truth_beside, truth_path_of
from ctscribe.measure.shapes import bad_predictions, read_json_reports, reports_as_json
from ctscribe.text.report_tables import read_report_table, report_sections, volume_stem
from ctscribe.text.sections import headed_report

Format = PredictionFormat
_RECONSTRUCTION = re.compile(r"_\d+\Z")
_NUM_NAMED = 3


@final
@dataclass(frozen=True)
class NamedReport:
    """A report somebody wrote for a volume."""

    name: str
    """The volume's or the scan's, without folder and suffix."""
    findings: str
    impression: str
    whole: str | None = field(default=None, compare=False)
    """As it stood where it was one text; its sections say the same."""

    @property
    def as_one_text(self) -> str:
        """As it stood, or both sections under their headings."""
        return headed_report(self.findings, self.impression) if self.whole is None else self.whole


@final
@dataclass
class Noticed:
    """What was taken away or passed over while reports were read; readers add to it."""

    special_tokens: int = 0
    """Reports that held special tokens of a language model."""
    other_questions: int = 0
    """Answers to questions that ask for no report, of which CT-CHAT's files are full."""

    def without_special_tokens(self, texts: Iterable[str]) -> tuple[str, ...]:
        """The texts of one report, which is counted if any held such tokens."""
        before = tuple(texts)
        after = tuple(map(without_special_tokens, before))
        self.special_tokens += after != before
        return after

    def facts(self) -> dict[str, int]:
        """What belongs beside the number of scans."""
        return {
            "reports_with_special_tokens": self.special_tokens,
            "other_questions_passed_over": self.other_questions,
        }


def tell_noticed(facts: Mapping[str, int]) -> list[str]:
    """Sentences on what `Noticed.facts` and `References.facts` count."""
    held = "held special tokens of a language model, which were taken away"
    told = {
        "reports_with_special_tokens": f"reports {held}",
        "references_with_special_tokens": f"references {held}",
        "other_questions_passed_over": "answers to other questions than for a report passed over",
    }
    return [f"{facts[name]} {what}" for name, what in told.items() if facts.get(name)]


def read_predictions(
    path: Path,
    studies: Sequence[ReportedRow],
    left_out: Collection[str] = (),
    noticed: Noticed | None = None,
) -> list[PredictionRow]:
    """Reads predictions, ours or another tool's, as rows of the studies they answer.

    Our own ``.jsonl`` comes back as it is, without the volumes ``left_out`` and without special
    tokens; for others see `put_to_studies`, for CT2Rep's ``res.csv`` beside its ``gts.csv`` also
    `name_by_truth`.

    Raises:
        CtscribeError: As `read_written`, `put_to_studies` and `name_by_truth`.
    """
    noticed = noticed or Noticed()
    if not _holds_our_rows(path):
        return put_to_studies(read_written(path, noticed, studies), path, studies, left_out)
    rows = _read_our_rows(path, noticed)
    return [row for row in rows if volume_stem(row.volume_name) not in left_out]


def _holds_our_rows(path: Path) -> bool:
    """Whether a file is JSONL whose first line names a scan; other tools' lines name a volume.

    Raises:
        CtscribeError: ``E_PREDICTION`` for a file that its name says to be something else.
    """
    suffix = path.suffix.lower()
    if suffix not in ("", ".csv", ".json", ".jsonl"):
        raise bad_predictions(path, f"its name ends in {suffix[:20]}")
    if suffix != ".jsonl":
        return suffix == ""
    _, line = next(read_lines(path), (1, ""))
    return not line.lstrip().startswith("{") or '"scan_id"' in line


def _read_our_rows(path: Path, noticed: Noticed) -> list[PredictionRow]:
    rows = []
    for row in read_rows(path, PredictionRow):
        texts = row.findings, row.impression, row.whole or ""
        findings, impression, whole = cleaned = noticed.without_special_tokens(texts)
        if cleaned != texts:
            said = {"findings": findings, "impression": impression, "whole": whole or None}
            row = PredictionRow.model_validate(row.model_dump() | said)
        rows.append(row)
    return rows


def put_to_studies(
    written: Sequence[NamedReport],
    path: Path,
    studies: Sequence[ReportedRow],
    left_out: Collection[str] = (),
) -> list[PredictionRow]:
    """Reports by the names of volumes, as rows of the studies they answer.

    A scan may have several volumes, each with a report of its own. The report of the prepared
    volume is taken; without one, that of the first reconstruction.

    Args:
        path: Where they are from.
        studies: The prepared studies; a name is a volume's, its scan's, or that of another
            reconstruction of the scan.
        left_out: Names, without suffix, of volumes that are not scored: theirs are passed over.

    Raises:
        CtscribeError: ``E_PREDICTION`` for names that belong to no study.
    """
    passed_over = {*left_out, *(_RECONSTRUCTION.sub("", name) for name in left_out)}
    by_volume = {volume_stem(study.volume_name): study for study in studies}
    by_scan = {study.scan_id: study for study in reversed(studies)}
    chosen: dict[str, tuple[tuple[bool, str], NamedReport, ReportedRow]] = {}
    unknown = []
    for report in written:
        same_scan = by_scan.get(report.name) or by_scan.get(_RECONSTRUCTION.sub("", report.name))
        study = by_volume.get(report.name) or same_scan
        if study is None:
            if report.name not in passed_over:
                unknown.append(report.name)
            continue
        rank = report.name not in by_volume, report.name
        if study.scan_id not in chosen or rank < chosen[study.scan_id][0]:
            chosen[study.scan_id] = rank, report, study
    if unknown:
        named = ", ".join(name[:80] for name in unknown[:_NUM_NAMED])
        raise CtscribeError(
            "E_PREDICTION",
            f"every name in {path} must belong to one of the references, but {len(unknown)} do "
            f"not, such as {named}",
        )
    return [_answer(report, study) for _, report, study in chosen.values()]


def _answer(report: NamedReport, study: ReportedRow) -> PredictionRow:
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=report.findings,
        impression=report.impression,
        whole=report.whole,
    )


def read_written(
    path: Path, noticed: Noticed | None = None, studies: Sequence[ReportedRow] | None = None
) -> list[NamedReport]:
    """Reads predictions of any of the formats, in their order.

    CT2Rep's files name no volume; the names are found by what is known of the ``studies``.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_JSON``, ``E_ROW``, ``E_PREDICTION`` for JSON of another
            shape, a name that occurs twice or files without names where no studies are given, and
            what `read_report_table` and `name_by_truth` raise.
    """
    noticed = noticed or Noticed()
    found: Iterable[tuple[str, Sequence[str]]]
    if truth_path := truth_beside(path):
        if studies is None:
            raise bad_predictions(
                path, "it is CT2Rep's, which names none: --references must say whose"
            )
        pairs = name_by_truth(path, truth_path, studies)
        found = [(name, (text,)) for name, text in pairs]
    elif path.suffix.lower() == ".csv":
        table = read_report_table(path, allow_empty=True)
        found = zip(table.names, table.texts, strict=True)
    elif _holds_our_rows(path):
        rows = _read_our_rows(path, noticed)
        return [
            NamedReport(volume_stem(row.volume_name), row.findings, row.impression) for row in rows
        ]
    else:
        pairs, num_others = read_json_reports(path)
        noticed.other_questions += num_others
        found = [(name, (text,)) for name, text in pairs]
    return named_reports(path, found, noticed)


def named_reports(
    path: Path, found: Iterable[tuple[str, Sequence[str]]], noticed: Noticed
) -> list[NamedReport]:
    """Reports by name, each given as one text or as Findings and Impression.

    Raises:
        CtscribeError: ``E_PREDICTION``, naming ``path``, for names that differ at most in folder
            or suffix.
    """
    written: dict[str, NamedReport] = {}
    for full_name, as_read in found:
        name, texts = volume_stem(full_name), noticed.without_special_tokens(as_read)
        findings, impression = report_sections(texts)
        is_whole = len(texts) == 1 and (findings or impression)
        report = NamedReport(name, findings, impression, texts[0] if is_whole else None)
        if written.setdefault(name, report) is not report:
            raise bad_predictions(path, f"{name[:80]} occurs twice")
    return [*written.values()]


def ct_rate_parts(name: str) -> VolumeName | None:
    """A volume's or a scan's name of CT-RATE's kind, taken apart."""
    for suffix in (".nii.gz", "_1.nii.gz"):
        with suppress(CtscribeError):
            return parse_volume_name(volume_stem(name) + suffix)
    return None


def format_written(written: Sequence[NamedReport], form: Format) -> str:
    """The text of a file in one of the formats.

    CSV and JSONL have sections; of JSON each report is one text, as it stood or with the headings
    of its sections.
    """
    if form == "csv":
        rows = [(f"{r.name}.nii.gz", r.findings, r.impression) for r in written]
        return format_csv([("VolumeName", "Findings_EN", "Impressions_EN"), *rows])
    if form == "jsonl":
        return "".join(line_of(_row_by_name(report)) for report in written)
    content = reports_as_json([(report.name, report.as_one_text) for report in written], form)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _row_by_name(report: NamedReport) -> PredictionRow:
    """A report as a row of the scan and the patient that its name tells, else of one by itself."""
    parts = ct_rate_parts(report.name)
    return PredictionRow(
        scan_id=parts.scan_id if parts else report.name,
        patient_id=parts.patient_id if parts else report.name,
        volume_name=f"{report.name}.nii.gz" if parts else report.name,
        findings=report.findings,
        impression=report.impression,
    )


def convert_predictions(
    path: Path,
    out: Path,
    form: Format,
    studies: Sequence[ReportedRow] | None,
    noticed: Noticed,
) -> tuple[int, list[Path]]:
    """Writes predictions of any format in another one.

    Args:
        path: The predictions.
        out: File to write; of CT2Rep's two, that of the predictions.
        form: Of the file.
        studies: Those that are answered, by whose names CT2Rep's files and our own rows are
            written; None where they are not known.
        noticed: Counts what is taken away.

    Returns:
        How many reports were written, and the files.

    Raises:
        CtscribeError: As `read_written` and `put_to_studies`, ``E_OPTION`` and ``E_WRITE``.
    """
    written = read_written(path, noticed, studies)
    if studies is None and form == "ct2rep":
        raise CtscribeError(
            "E_OPTION", "CT2Rep's files need the true reports (--references), but none are given"
        )
    if studies is None or form not in ("ct2rep", "jsonl"):
        write_text(out, format_written(written, form))
        return len(written), [out]
    rows = put_to_studies(written, path, studies)
    if form == "jsonl":
        return write_rows(out, rows), [out]
    texts = {row.volume_name: f"{row.findings} {row.impression}".strip() for row in rows}
    paths = [out, truth_path_of(out)]
    for each, text in zip(paths, format_ct2rep(texts, studies), strict=True):
        write_text(each, text)
    return len(rows), paths
