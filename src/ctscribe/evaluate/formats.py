"""Predictions as others write them: read into our rows, and written for their tools.

| format  | file  | one report |
|---------|-------|------------|
| ctscribe | .jsonl | `PredictionRow` |
| csv     | .csv  | a row; see `reports.report_table` |
| vlm3d   | .json | ``{"generated_reports": [{"input_image_name": …, "report": …}]}`` |
| ct-chat | .json | ``[{"image": …, "conversations": [{"from": "gpt", "value": …}]}]`` |

The challenge's scorer takes a name up to its last point as the key of a volume, so names end in
``.mha`` there. Its field names, and CT-CHAT's ``conversations_out`` with ``answer`` beside the
``conversations`` of its training files, are assumed, not documented. A JSON object name → report
is read too. Text without headings counts as findings.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

from ctscribe.errors import CtscribeError
from ctscribe.files import read_json
from ctscribe.reports.report_table import read_report_table
from ctscribe.reports.sections import split_report
from ctscribe.rows import PredictionRow, read_rows

Format = Literal["csv", "vlm3d", "ct-chat"]
_NAMES = ("input_image_name", "image", "VolumeName", "volume_name", "image_name", "name", "id")
_TEXTS = ("report", "generated_report", "report_text", "prediction", "text")
_LISTS = ("generated_reports", "predictions", "reports")
_SUFFIXES = frozenset({".gz", ".nii", ".mha", ".mhd", ".npz", ".npy"})


@final
@dataclass(frozen=True)
class Written:
    """A report somebody wrote for a volume."""

    name: str
    """The volume's or the scan's, without folder and suffix."""
    findings: str
    impression: str


def read_written(path: Path) -> list[Written]:
    """Reads predictions of any of the formats, in their order.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_JSON``, ``E_ROW``, ``E_PREDICTION`` for JSON of another
            shape or a name that occurs twice, and what `read_report_table` raises.
    """
    if path.suffix.lower() == ".csv":
        table = read_report_table(path)
        pairs = zip(table.names, table.cells, strict=True)
        written = [Written(volume_stem(name), *_sections(cells)) for name, cells in pairs]
    elif path.suffix.lower() == ".json":
        answers = _answers(path, read_json(path))
        written = [Written(volume_stem(name), *split_report(text)) for name, text in answers]
    else:
        rows = read_rows(path, PredictionRow)
        return [Written(volume_stem(row.volume_name), row.findings, row.impression) for row in rows]
    seen: set[str] = set()
    for report in written:
        if report.name in seen:
            raise _bad(path, f"{report.name[:80]} occurs twice")
        seen.add(report.name)
    return written


def volume_stem(name: str) -> str:
    """A volume's name without folder and suffixes: ``valid_1_a_1.nii.gz`` is ``valid_1_a_1``."""
    path = PurePosixPath(name.strip())
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _sections(cells: Sequence[str]) -> tuple[str, str]:
    if len(cells) == 2:
        return cells[0].strip(), cells[1].strip()
    return split_report(cells[0])


def _answers(path: Path, content: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
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
        yield name, text


def _spoken(fields: Mapping[str, Any]) -> str | None:
    """The one answer of a conversation, or the one to a report's request; None without one."""
    answers: list[str] = []
    asked: list[str] = []
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
                asked.append(answer)
    chosen = asked or answers
    return chosen[0] if len(chosen) == 1 else None


def _bad(path: Path, what: str) -> CtscribeError:
    return CtscribeError(
        "E_PREDICTION",
        f"{path} must hold one report for each volume, as a CSV of VolumeName and report_text "
        f"or JSON of the VLM3D challenge or of CT-CHAT, but {what}",
    )


def format_written(written: Sequence[Written], form: Format) -> str:
    """The text of a file in another tool's format; JSON has the sections joined by a space."""
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("VolumeName", "Findings_EN", "Impressions_EN"))
        writer.writerows((f"{r.name}.nii.gz", r.findings, r.impression) for r in written)
        return text.getvalue()
    whole = [
        (report.name, f"{report.findings.strip()} {report.impression.strip()}".strip())
        for report in written
    ]
    if form == "ct-chat":
        return _json([_conversation(name, text) for name, text in whole])
    return _json(
        {
            "name": "Generated reports",
            "type": "Report generation",
            "version": {"major": 1, "minor": 0},
            "generated_reports": [
                {"input_image_name": f"{name}.mha", "report": text} for name, text in whole
            ],
        }
    )


def _conversation(name: str, text: str) -> dict[str, Any]:
    request = "<image>\nWrite a radiology report for this chest CT.<report_generation>"
    return {
        "id": name,
        "image": f"{name}.nii.gz",
        "conversations": [{"from": "human", "value": request}, {"from": "gpt", "value": text}],
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
