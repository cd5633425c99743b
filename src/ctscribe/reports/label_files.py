"""Label a CSV of reports into CT-RATE's label columns, and say which words each label rests on."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ctscribe.files import write_text
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import find_mentions, label_reports
from ctscribe.reports.report_table import ReportTable, read_report_table

ReadFindings = Callable[[Sequence[str]], Bool[np.ndarray, "texts 18"]]
"""Texts → whether each states each of `FINDINGS`."""


def label_csv(
    reports_path: Path,
    labels_path: Path,
    *,
    read: ReadFindings = label_reports,
    evidence_path: Path | None = None,
) -> int:
    """Writes the 18 labels of every report, columns in CT-RATE's order.

    Args:
        reports_path: See `read_report_table`.
        labels_path: CSV to write, keyed and ordered as the input is.
        read: Who reads the findings; the rules unless another reader is given.
        evidence_path: Where to write, for each report, the mentions the rules find, as JSONL:
            finding, status, column, start and end in that column's cell, the words, the sentence.

    Returns:
        Number of reports.

    Raises:
        CtscribeError: As `read_report_table`, ``E_WRITE``.
    """
    table = read_report_table(reports_path)
    # The sections stand apart, so that no sentence joins them.
    stated = read(["\n".join(part for part in cells if part) for cells in table.cells])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((table.key, *FINDINGS))
    writer.writerows(
        (name, *row.astype(int)) for name, row in zip(table.names, stated, strict=True)
    )
    if evidence_path is not None:
        write_text(evidence_path, "".join(json.dumps(row) + "\n" for row in _evidence(table)))
    write_text(labels_path, text.getvalue())
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
        for name, cells in zip(table.names, table.cells, strict=True)
    ]
