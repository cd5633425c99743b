"""Files of scores → tables, and tables → files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ctscribe.errors import CtscribeError
from ctscribe.files import read_json, write_text
from ctscribe.tables.breakdown import breakdown_tables
from ctscribe.tables.differences import differences_table
from ctscribe.tables.systems import score_tables
from ctscribe.tables.table import Table
from ctscribe.tables.written import to_csv, to_latex, to_markdown

Form = Literal["markdown", "csv", "latex"]
_FORMS = {"markdown": (to_markdown, ".md"), "csv": (to_csv, ".csv"), "latex": (to_latex, ".tex")}


def tables_of(paths: Sequence[Path]) -> list[Table]:
    """The tables of one comparison, or of the scores of one or several runs.

    Several runs stand in common tables; one run is also taken apart.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_JSON``, and ``E_SCORES`` for files of another kind, or
            for runs that were scored on different scans.
    """
    content = {name: read_json(path) for name, path in run_names(paths).items()}
    first, *others = content.values()
    if isinstance(first, dict) and "differences" in first and not others:
        return [differences_table(first["base"], first)]
    for name, scores in content.items():
        if not isinstance(scores, dict) or not {"model", "baselines", "n"} <= scores.keys():
            raise CtscribeError(
                "E_SCORES",
                f"{name} must be what `ctscribe evaluate` or `ctscribe compare` wrote, but has no "
                "scores",
            )
        _require_same_scans(name, scores, first)
    runs = score_tables(content)
    return runs if others else [*runs, *breakdown_tables(first)]


def run_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Shortest names that tell files apart: their own, with as many folders as it takes.

    Raises:
        CtscribeError: ``E_SCORES`` when a file is given twice.
    """
    whole = [path.resolve().with_suffix("") for path in paths]
    if len(set(whole)) < len(whole):
        raise CtscribeError("E_SCORES", "every run must be given once, but one is given twice")
    parts = 1
    while len({path.parts[-parts:] for path in whole}) < len(whole):
        parts += 1
    return {"/".join(name.parts[-parts:]): path for name, path in zip(whole, paths, strict=True)}


def written_tables(tables: Sequence[Table], form: Form) -> str:
    """All tables one after the other."""
    render, _ = _FORMS[form]
    return "\n".join(render(table) for table in tables)


def write_tables(folder: Path, tables: Sequence[Table], form: Form) -> list[Path]:
    """Writes each table to a file named by its title."""
    render, suffix = _FORMS[form]
    paths = []
    for table in tables:
        name = re.sub(r"[^a-z0-9]+", "_", table.title.lower()).strip("_")
        paths.append(folder / f"{name}{suffix}")
        write_text(paths[-1], render(table))
    return paths


def _require_same_scans(name: str, scores: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    if (scores["n"]["scans"], scores["n"]["patients"]) != (
        first["n"]["scans"],
        first["n"]["patients"],
    ):
        raise CtscribeError(
            "E_SCORES",
            f"runs in one table must be scored on the same scans, but {name} has "
            f"{scores['n']['scans']} scans and the first {first['n']['scans']}",
        )
