"""Label a CSV of reports into CT-RATE's label columns."""

import csv
import io
from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.files import write_text
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import label_report
from ctscribe.reports.sections import join_report

_KEYS = ("VolumeName", "AccessionNo")
_SECTIONS = ("Findings_EN", "Impressions_EN")
_NOT_GIVEN = "Not given."


def label_csv(reports_path: Path, labels_path: Path) -> int:
    """Writes the 18 labels of every report, columns in CT-RATE's order.

    Args:
        reports_path: CSV with ``VolumeName`` or ``AccessionNo``, and ``report_text`` or
            ``Findings_EN`` and ``Impressions_EN``; further columns are not read.
        labels_path: CSV to write, keyed as the input is.

    Returns:
        Number of reports.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_CSV`` for another format, ``E_COLUMN``,
            ``E_EMPTY_REPORT``.
    """
    try:
        with reports_path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            key, columns = _choose_columns(reports_path, reader.fieldnames or [])
            rows = [(row[key], _text(reports_path, row, key, columns)) for row in reader]
    except FileNotFoundError as error:
        raise CtscribeError(
            "E_MISSING", f"{reports_path} must exist; give the path of a CSV file of reports"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CtscribeError(
            "E_CSV", f"{reports_path} must be a CSV file in UTF-8, but {error}; export it again"
        ) from error
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((key, *FINDINGS))
    writer.writerows((name, *label_report(text)) for name, text in rows)
    write_text(labels_path, table.getvalue())
    return len(rows)


def _choose_columns(path: Path, names: object) -> tuple[str, tuple[str, ...]]:
    found = list(names) if isinstance(names, list | tuple) else []
    key = next((name for name in _KEYS if name in found), None)
    if key and "report_text" in found:
        return key, ("report_text",)
    if key and all(name in found for name in _SECTIONS):
        return key, _SECTIONS
    raise CtscribeError(
        "E_COLUMN",
        f"{path} must have VolumeName or AccessionNo, and report_text or Findings_EN and "
        f"Impressions_EN, but has {', '.join(map(str, found)) or 'no header'}; rename its columns",
    )


def _text(path: Path, row: dict[str, str | None], key: str, columns: tuple[str, ...]) -> str:
    parts = [(row[column] or "").strip() for column in columns]
    parts = ["" if part == _NOT_GIVEN else part for part in parts]
    if not any(parts):
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"every report in {path} must have text, but {row[key]} has none; "
            "fill it or remove the row",
        )
    return parts[0] if len(parts) == 1 else join_report(*parts)
