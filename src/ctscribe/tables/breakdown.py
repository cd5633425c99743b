"""One run's scores taken apart: findings, groups of scans, sides and sizes, likeness."""

from collections.abc import Mapping
from typing import Any

from ctscribe.tables.table import Cell, Table, cell_of

Scores = Mapping[str, Any]

_COUNTS = {"true_positives": "Right", "false_positives": "Wrong", "false_negatives": "Missed"}
_RATES = {"coverage": "Coverage", "precision": "Precision", "f1": "F1"}
LIKENESS = {
    "shared_token_share": "Words in shared sentences",
    "repeated_share": "Repeated reports",
    "self_bleu_4": "Self-BLEU-4",
}
"""Measures of `evaluate.template` and their titles."""
_AGREEMENT = {
    "side_agreement": "Same side",
    "nodule_size_within_2_mm": "Nodule size within 2 mm",
    "nodule_size_error_mm": "Error of nodule size, mm",
}


def breakdown_tables(scores: Scores) -> list[Table]:
    """Each finding, groups of scans, agreement on sides and sizes, and likeness of reports."""
    return [_findings(scores), _groups(scores), _agreement(scores), _likeness(scores)]


def _findings(scores: Scores) -> Table:
    def positives(row: Mapping[str, Any]) -> int:
        return int(row["true_positives"] + row["false_negatives"])

    rows = tuple(
        (
            row["finding"],
            *(cell_of(row[rate]) for rate in _RATES),
            *(str(row[count]) for count in _COUNTS),
        )
        for row in sorted(scores["per_finding"], key=lambda row: -positives(row))
    )
    columns = ("Finding", *_RATES.values(), *_COUNTS.values())
    note = "Most frequent first; right, wrong and missed count scans."
    return Table("Each finding", columns, rows, (note,))


def _groups(scores: Scores) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    rules: list[int] = []
    last = None
    for row in scores["strata"]:
        if last not in (None, row["grouping"]):
            rules.append(len(rows))
        last = row["grouping"]
        cells = (cell_of(row[name]) for name in (*_RATES, "nodule_coverage"))
        rows.append((f"{row['grouping']}: {row['stratum']}", str(row["scans"]), *cells))
    notes = (
        "Groups are read from the reference and the scan's metadata alone; a nodule below 3 mm is "
        "counted below 6 mm too.",
        "Nodule Coverage: share of the group's scans with a nodule for which one was stated.",
    )
    columns = ("Group", "Scans", *_RATES.values(), "Nodule Coverage")
    return Table("Groups of scans", columns, tuple(rows), notes, tuple(rules))


def _agreement(scores: Scores) -> Table:
    found = scores["agreement"]
    rows = tuple((title, cell_of(found[name])) for name, title in _AGREEMENT.items())
    notes = tuple(f"{_AGREEMENT[name]}: {_definition(found[name])}." for name in _AGREEMENT)
    return Table("Sides and sizes", ("Where both reports state it", "Value"), rows, notes)


def _likeness(scores: Scores) -> Table:
    template = scores["template"]
    rows = tuple(
        (title, *(f"{template[side][name]:.3f}" for side in ("references", "predictions")))
        for name, title in LIKENESS.items()
    )
    notes = (
        "Words in shared sentences: share of all words that stand in a sentence which at least 1 % "
        "of the patients, and at least two, have in common.",
        "Repeated reports: share of all that say what another says, word for word. Self-BLEU-4: of "
        "each report against another scan's. Both are 1 when all reports are the same.",
    )
    distinct = (str(template[side]["distinct_reports"]) for side in ("references", "predictions"))
    rows = (*rows, ("Distinct reports, number", *distinct))
    columns = ("Measure", "References", "Predictions")
    return Table("How alike reports are", columns, rows, notes)


def _definition(score: Mapping[str, Any]) -> str:
    return str(score["signature"]).partition("|")[2]
