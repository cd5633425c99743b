"""A report, or a table of reports → mentions and labels of the 18 findings."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool

from ctscribe.base.files import write_text
from ctscribe.base.rows import ReportedRow
from ctscribe.base.tables import format_csv
from ctscribe.base.types import Labels
from ctscribe.text.findings import FINDINGS
from ctscribe.text.lexicon import EIGHTEEN, Lexicon
from ctscribe.text.polarity import Status, heading_end, read_polarity
from ctscribe.text.report_tables import ReportTable, read_report_table, volume_stem
from ctscribe.text.sections import join_report, sentence_spans
from ctscribe.text.spelling import meant_by

ReadFindings = Callable[[Sequence[str]], Bool[np.ndarray, "texts 18"]]
"""Texts → whether each states each of `FINDINGS`."""
_WIDE_SPACE = re.compile(r"[^\S ]|\s\s")
_WORD = re.compile(r"[a-z]{4,}")
_PIECE = re.compile(r"[a-z]+|\s+|.")
_WEIGHT: dict[Status, int] = {"absent": 0, "uncertain": 1, "present": 2}


@final
@dataclass(frozen=True)
class Mention:
    """A finding named in a report."""

    finding: str
    """One of `FINDINGS`, or a finding of another lexicon."""
    status: Status
    sentence: str
    """The sentence that names it."""
    span: tuple[int, int]
    """Start and end of its words in the report."""


def find_mentions(text: str, lexicon: Lexicon = EIGHTEEN) -> list[Mention]:
    """Every mention of the 18 findings, or of another lexicon's, in the order of the text."""
    mentions = []
    spans = sentence_spans(text)
    for number, (start, end) in enumerate(spans):
        sentence = text[start:end]
        # A heading on a line of its own is read with the line below it, which may deny it.
        is_heading = sentence.rstrip("*_ ").endswith(":") and number + 1 < len(spans)
        told = text[start : spans[number + 1][1]] if is_heading else sentence
        for finding, status, first, last in _read_sentence(told, lexicon):
            if last <= len(sentence):
                mentions.append(Mention(finding, status, sentence, (start + first, start + last)))
    return mentions


def finding_statuses(text: str, lexicon: Lexicon = EIGHTEEN) -> dict[str, Status]:
    """The status of each finding in ``text``: present outweighs uncertain, uncertain absent."""
    statuses: dict[str, Status] = {}
    for mention in find_mentions(text, lexicon):
        known = statuses.setdefault(mention.finding, mention.status)
        statuses[mention.finding] = max(known, mention.status, key=_WEIGHT.__getitem__)
    return statuses


@lru_cache(maxsize=1 << 14)
def label_report(text: str) -> Labels:
    """The 18 labels in `FINDINGS` order: 1 where at least one mention is affirmed, else 0."""
    statuses = finding_statuses(text)
    return tuple(int(statuses.get(finding) == "present") for finding in FINDINGS)


def known_labels(study: ReportedRow) -> Labels:
    """A study's own labels or, where its source has none, those that its report states."""
    return study.labels or label_report(join_report(study.findings, study.impression))


def label_reports(texts: Sequence[str]) -> Bool[np.ndarray, "texts 18"]:
    """Whether each text affirms each of `FINDINGS`; a `ReadFindings`."""
    labels = [label_report(text) for text in texts]
    return np.array(labels, dtype=bool).reshape(-1, len(FINDINGS))


def label_csv(
    reports_path: Path,
    labels_path: Path,
    *,
    read: ReadFindings = label_reports,
    evidence_path: Path | None = None,
    as_challenge: bool = False,
) -> int:
    """Writes the 18 labels of every report, columns in CT-RATE's order.

    Args:
        reports_path: See `read_report_table`.
        labels_path: CSV to write, keyed and ordered as the input is.
        read: Reads the findings; by default the rules of this wing.
        evidence_path: JSONL to write with the mentions that the rules find in each report:
            finding, status, column, start and end in that column's cell, the words, the sentence.
        as_challenge: Whether rows are keyed by ``AccessionNo`` without suffix, as in CT-RATE's
            challenge.

    Returns:
        Number of reports.

    Raises:
        CtscribeError: As `read_report_table`, ``E_WRITE``.
    """
    table = read_report_table(reports_path)
    # A line break keeps the last sentence of one section apart from the first of the other.
    stated = read(["\n".join(part for part in cells if part) for cells in table.texts])
    key, names = table.key, list(table.names)
    if as_challenge:
        key, names = "AccessionNo", [volume_stem(name) for name in names]
    rows = [(name, *row.astype(int)) for name, row in zip(names, stated, strict=True)]
    if evidence_path is not None:
        write_text(evidence_path, "".join(json.dumps(row) + "\n" for row in _evidence(table)))
    write_text(labels_path, format_csv([(key, *FINDINGS), *rows]))
    return len(table.names)


def _evidence(table: ReportTable) -> list[dict[str, Any]]:
    return [
        {
            table.key: name,
            "mentions": [
                {
                    "finding": mention.finding,
                    "status": mention.status,
                    "column": column,
                    "start": mention.span[0],
                    "end": mention.span[1],
                    "words": cell[slice(*mention.span)],
                    "sentence": mention.sentence,
                }
                for column, cell in zip(table.columns, cells, strict=True)
                for mention in find_mentions(cell)
            ],
        }
        for name, cells in zip(table.names, table.texts, strict=True)
    ]


@lru_cache(maxsize=1 << 15)
def _read_sentence(sentence: str, lexicon: Lexicon) -> tuple[tuple[str, Status, int, int], ...]:
    """Finding, status, start and end of each mention; cached, because stock sentences recur."""
    lowered = sentence.lower()
    if len(lowered) != len(sentence):
        # A few capitals become two characters in lower case, which would shift positions.
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in sentence)
    plain, places = _correct_spelling(lowered)
    return tuple(
        (finding, status, places[start], places[end - 1] + 1)
        for finding, status, start, end in _read_plain(plain, lexicon)
    )


def _correct_spelling(lowered: str) -> tuple[str, Sequence[int]]:
    """The text with single spaces and corrected words; and each character's place in the input."""
    slips = [word for word in _WORD.findall(lowered) if meant_by(word) != word]
    if not slips and not _WIDE_SPACE.search(lowered):
        return lowered, range(len(lowered))
    words: list[str] = []
    places: list[int] = []
    for piece in _PIECE.finditer(lowered):
        start, last = piece.start(), piece.end() - 1
        meant = " " if piece[0].isspace() else meant_by(piece[0])
        words.append(meant)
        # The last character of a corrected word is placed at the end of the misspelt one.
        places += [min(start + i, last) for i in range(len(meant) - 1)]
        places.append(last if len(meant) > 1 else start)
    return "".join(words), places


def _read_plain(lowered: str, lexicon: Lexicon) -> tuple[tuple[str, Status, int, int], ...]:
    colon = heading_end(lowered)
    # What stands under a heading is said of its topic: "coronary arteries: calcified".
    told = lowered if colon is None else f"{lowered[:colon]}|{lowered[colon + 1 :]}"
    found = lexicon.named_in(told)
    if not found:
        return ()
    polarity = read_polarity(lowered)
    read = (
        (concept.finding, polarity.status(*span, lasting=concept.finding in lexicon.lasting), *span)
        for concept, span in found
        if not concept.is_void(told, span, polarity.clause(*span))
    )
    return tuple(sorted(read, key=lambda mention: mention[2:]))
