"""The JSON in which other tools keep reports: content → (name, text) pairs, and back.

In: a file, or pairs to be written. Out: the other of the two. Known are the VLM3D challenge's file,
alone or within the predictions.json that its scorer reads, CT-CHAT's outputs and ground truth, and
plain lists or maps of names and texts.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import UNPARSABLE, parse_json, read_any_json
from ctscribe.base.rows import read_lines
from ctscribe.base.types import PredictionFormat
from ctscribe.text.report_tables import TEXTS

Pair = tuple[str, str]
"""A volume's name and its report; or a question, its kind behind it, and the answer."""

_NAMES = ("input_image_name", "image", "VolumeName", "volume_name", "image_name", "name", "id")
_LISTS = ("generated_reports", "predictions", "reports")
_MARK = "report_generation"
_KIND = re.compile(r"<(?!image>)\w+>")
_REPORT = re.compile(r"\breports?\b", re.IGNORECASE)
_REQUESTS: Sequence[Callable[[str], bool]] = (
    lambda question: _MARK in question,
    lambda question: _REPORT.search(question) is not None and not _KIND.search(question),
    lambda question: not _KIND.search(question),
)
"""Which questions ask for a report, by the first of these that holds for any in a file: those of
that kind, those that name a report, or, if none does, those of no kind."""


def read_json_reports(path: Path) -> tuple[list[Pair], int]:
    """As `reports_in_json`, of a file; the lines of a ``.jsonl`` are the entries.

    Raises:
        CtscribeError: As `read_any_json` or `read_lines`, and ``E_PREDICTION``.
    """
    if path.suffix.lower() != ".jsonl":
        return reports_in_json(path, read_any_json(path))
    entries = []
    for number, line in read_lines(path):
        try:
            entries.append(parse_json(line))
        except UNPARSABLE as error:
            raise bad_predictions(path, f"line {number} is no JSON") from error
    return reports_in_json(path, entries)


def reports_in_json(
    path: Path,
    content: Any,  # noqa: ANN401 - JSON
) -> tuple[list[Pair], int]:
    """The reports of a file, and how many answers to other questions stand beside them.

    Raises:
        CtscribeError: ``E_PREDICTION``, naming the entry.
    """
    entries = _listed(content)
    if not entries:
        raise bad_predictions(path, "it holds no list of reports")
    asked = [question for entry in entries for question, _ in _answers(entry)]
    asks = next((asks for asks in _REQUESTS if any(map(asks, asked))), _REQUESTS[0])
    found: list[Pair] = []
    num_answers = 0
    for number, entry in enumerate(entries, 1):
        name = next((entry[key] for key in _NAMES if isinstance(entry.get(key), str)), None)
        told = [key for key in TEXTS if isinstance(entry.get(key, 0), str | None)]
        if len(told) > 1:
            raise bad_predictions(
                path, f"entry {number} has {' beside '.join(told)}, and nothing says which is meant"
            )
        answers = [] if told else _answers(entry)
        texts = [entry[key] or "" for key in told]
        texts += [answer for question, answer in answers if asks(question)]
        if name is None or len(texts) > 1 or not (texts or answers):
            lacking = "a name" if name is None else "one report"
            raise bad_predictions(path, f"entry {number} lacks {lacking}")
        found += [(name, text) for text in texts]
        num_answers += len(answers) or 1
    if not found:
        raise bad_predictions(path, f"none of its {num_answers} questions asks for a report")
    return found, num_answers - len(found)


def _listed(content: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    """The entries, one of each report or conversation; what is no object is an empty one."""
    jobs = content if isinstance(content, list) else [content]
    values = [value for job in jobs for value in _output_values(job)]
    if values:
        return [entry for value in values for entry in _listed(value)]
    if isinstance(content, dict):
        key = next((key for key in _LISTS if isinstance(content.get(key), list | dict)), None)
        content = content[key] if key else content
    if isinstance(content, dict):
        content = [{"name": name, "text": text} for name, text in content.items()]
    entries = content if isinstance(content, list) else []
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def _output_values(job: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    """Those of a job's outputs that are lists of reports; other outputs are no reports."""
    outputs = job.get("outputs") if isinstance(job, dict) else None
    for output in outputs if isinstance(outputs, list) else ():
        value = output.get("value") if isinstance(output, dict) else None
        if isinstance(value, dict) and any(key in value for key in _LISTS):
            yield value


def _answers(entry: Mapping[str, Any]) -> list[Pair]:
    """The questions of a conversation, each with its kind behind it, and their answers."""
    found: list[Pair] = []
    question = ""
    turns = entry.get("conversations_out") or entry.get("conversations") or []
    for turn in turns if isinstance(turns, list) else []:
        said = turn if isinstance(turn, dict) else {}
        kind = f"<{said['type']}>" if isinstance(said.get("type"), str) else ""
        if "question" in said or said.get("from") == "human":
            question = f"{said.get('question', said.get('value', ''))}{kind}"
        answer = said.get("value") if said.get("from") == "gpt" else said.get("answer")
        if isinstance(answer, str):
            found.append((question if kind in question else question + kind, answer))
    return found


def bad_predictions(path: Path, what: str) -> CtscribeError:
    """The refusal of a file that is not what it must be."""
    return CtscribeError(
        "E_PREDICTION",
        f"{path} must hold one report for each volume, as a CSV of VolumeName and report_text "
        f"or JSON or JSONL of names and reports, of the VLM3D challenge or of CT-CHAT, but {what}",
    )


def reports_as_json(reports: Sequence[Pair], form: PredictionFormat) -> object:
    """The content of a file of VLM3D's or of CT-CHAT's, of volumes named without suffix."""
    if form == "ct-chat":
        question = f"Write a radiology report for this chest CT.<{_MARK}>"
        return [
            {
                "image": f"{name}.npz",
                "conversations_out": [{"question": question, "answer": text}],
            }
            for name, text in reports
        ]
    if form == "ct-chat-truth":
        question = f"<image>\nWrite a radiology report for this chest CT.<{_MARK}>"
        return [
            {
                "id": name,
                "image": f"{name}.nii.gz",
                "conversations": [
                    {"from": "human", "value": question, "type": _MARK},
                    {"from": "gpt", "value": text, "type": _MARK},
                ],
            }
            for name, text in reports
        ]
    written = {
        "name": "Generated reports",
        "type": "Report generation",
        "version": {"major": 1, "minor": 0},
        "generated_reports": [
            {"input_image_name": f"{name}.mha", "report": text} for name, text in reports
        ],
    }
    return [{"outputs": [{"value": written}]}] if form == "vlm3d-nested" else written
