"""Predictions of any format, put to the studies they were written for.

In: our JSONL, a CSV of reports, or JSON of the VLM3D challenge or of CT-CHAT. Out: rows of the
studies; or the same reports in another of these formats.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_any_json
from ctscribe.base.outside_text import one_form
from ctscribe.base.rows import PredictionRow, ReportedRow, read_rows
from ctscribe.base.tables import format_csv
from ctscribe.text.report_tables import read_report_table, report_sections

Format = Literal["csv", "vlm3d", "ct-chat"]
_NAMES = ("input_image_name", "image", "VolumeName", "volume_name", "image_name", "name", "id")
_TEXTS = ("report", "generated_report", "report_text", "prediction", "text")
_LISTS = ("generated_reports", "predictions", "reports")
_SUFFIXES = frozenset({".gz", ".nii", ".mha", ".mhd", ".npz", ".npy"})
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


def read_predictions(
    path: Path, studies: Sequence[ReportedRow], left_out: Collection[str] = ()
) -> list[PredictionRow]:
    """Reads predictions, ours or another tool's, as rows of the studies they answer.

    Our own ``.jsonl`` comes back as it is, without the volumes ``left_out``; for others see
    `put_to_studies`.

    Raises:
        CtscribeError: As `read_written` and `put_to_studies`.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        rows = read_rows(path, PredictionRow)
        return [row for row in rows if volume_stem(row.volume_name) not in left_out]
    return put_to_studies(read_written(path), path, studies, left_out)


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
    )


def read_written(path: Path) -> list[NamedReport]:
    """Reads predictions of any of the formats, in their order.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_JSON``, ``E_ROW``, ``E_PREDICTION`` for JSON of another
            shape or a name that occurs twice, and what `read_report_table` raises.
    """
    found: Iterable[tuple[str, tuple[str, ...]]]
    if path.suffix.lower() == ".csv":
        table = read_report_table(path, allow_empty=True)
        found = zip(table.names, table.texts, strict=True)
    elif path.suffix.lower() == ".json":
        found = _reports_in_json(path, read_any_json(path))
    else:
        rows = read_rows(path, PredictionRow)
        return [
            NamedReport(volume_stem(row.volume_name), row.findings, row.impression) for row in rows
        ]
    return named_reports(path, found)


def named_reports(path: Path, found: Iterable[tuple[str, Sequence[str]]]) -> list[NamedReport]:
    """Reports by name, each given as one text or as Findings and Impression.

    Raises:
        CtscribeError: ``E_PREDICTION``, naming ``path``, for names that differ at most in folder
            or suffix.
    """
    written = [NamedReport(volume_stem(name), *report_sections(texts)) for name, texts in found]
    seen: set[str] = set()
    for report in written:
        if report.name in seen:
            raise _bad(path, f"{report.name[:80]} occurs twice")
        seen.add(report.name)
    return written


def volume_stem(name: str) -> str:
    """A volume's name without folder and suffixes: ``valid_1_a_1.nii.gz`` is ``valid_1_a_1``.

    It is in Unicode's composed form.
    """
    path = PurePosixPath(one_form(name.strip()))
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name or name


def _reports_in_json(
    path: Path,
    content: Any,  # noqa: ANN401 - JSON
) -> Iterator[tuple[str, tuple[str]]]:
    if isinstance(content, dict):
        key = next((key for key in _LISTS if isinstance(content.get(key), list | dict)), None)
        content = content[key] if key else content
    if isinstance(content, dict):
        content = [{"name": name, "text": text} for name, text in content.items()]
    if not isinstance(content, list) or not content:
        raise _bad(path, "it holds no list of reports")
    for number, entry in enumerate(content, 1):
        fields = entry if isinstance(entry, dict) else {}
        name = next((fields[key] for key in _NAMES if isinstance(fields.get(key), str)), None)
        text = next((fields[key] for key in _TEXTS if isinstance(fields.get(key), str)), None)
        text = _spoken(fields) if text is None else text
        if name is None or text is None:
            raise _bad(path, f"entry {number} lacks {'a name' if name is None else 'one report'}")
        yield name, (text,)


def _spoken(fields: Mapping[str, Any]) -> str | None:
    """The one answer of a conversation, or the one to a report's request; None without one."""
    answers: list[str] = []
    reports: list[str] = []
    question = ""
    turns = fields.get("conversations_out") or fields.get("conversations") or []
    for turn in turns if isinstance(turns, list) else []:
        said = turn if isinstance(turn, dict) else {}
        question = str(said.get("question", question))
        if said.get("from") == "human":
            question = str(said.get("value", ""))
        answer = said.get("value") if said.get("from") == "gpt" else said.get("answer")
        if isinstance(answer, str):
            answers.append(answer)
            if "report_generation" in question:
                reports.append(answer)
    chosen = reports or answers
    return chosen[0] if len(chosen) == 1 else None


def _bad(path: Path, what: str) -> CtscribeError:
    return CtscribeError(
        "E_PREDICTION",
        f"{path} must hold one report for each volume, as a CSV of VolumeName and report_text "
        f"or JSON of the VLM3D challenge or of CT-CHAT, but {what}",
    )


def format_written(written: Sequence[NamedReport], form: Format) -> str:
    """The text of a file in another tool's format; JSON has the sections joined by a space."""
    if form == "csv":
        rows = [(f"{r.name}.nii.gz", r.findings, r.impression) for r in written]
        return format_csv([("VolumeName", "Findings_EN", "Impressions_EN"), *rows])
    whole = [
        (report.name, f"{report.findings.strip()} {report.impression.strip()}".strip())
        for report in written
    ]
    content: object = {
        "name": "Generated reports",
        "type": "Report generation",
        "version": {"major": 1, "minor": 0},
        "generated_reports": [
            {"input_image_name": f"{name}.mha", "report": text} for name, text in whole
        ],
    }
    if form == "ct-chat":
        content = [_conversation(name, text) for name, text in whole]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _conversation(name: str, text: str) -> dict[str, Any]:
    request = "<image>\nWrite a radiology report for this chest CT.<report_generation>"
    return {
        "id": name,
        "image": f"{name}.nii.gz",
        "conversations": [{"from": "human", "value": request}, {"from": "gpt", "value": text}],
    }
