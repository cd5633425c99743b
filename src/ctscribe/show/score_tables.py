"""Tables 1 and 2, and the scores of single runs, with what blindness scores below.

Systems are rows and metrics are columns: a metric is compared down one column, and further
baselines make a table longer, not wider.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ctscribe import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_text
from ctscribe.measure.baselines import LEAVE_ONE_OUT
from ctscribe.show.tables import (
    UNDEFINED,
    Cell,
    Table,
    cell_of,
    to_csv,
    to_latex,
    to_markdown,
)

Scores = Mapping[str, Any]

_COUNTS = {"true_positives": "Right", "false_positives": "Wrong", "false_negatives": "Missed"}
_RATES = {"coverage": "Coverage", "precision": "Precision", "f1": "F1"}
LIKENESS = {
    "shared_token_share": "Words in shared sentences",
    "repeated_share": "Repeated reports",
    "self_bleu_4": "Self-BLEU-4",
}
"""Measures of `measure.likeness` and their titles."""
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


METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "coverage": "Coverage",
    "precision": "Precision",
    "label_accuracy": "Accuracy",
}
"""Columns of Tables 1 and 2, by the key `measure.scores` writes; more is better in each."""

LANGUAGE = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
"""Columns about words; METEOR is there where it was asked for."""

FOUND = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "coverage_macro": "Coverage, macro",
    "precision_macro": "Precision, macro",
    "f1_macro": "F1, macro",
    "coverage_per_report": "Coverage per report",
    "label_accuracy": "Label accuracy",
    "exact_match": "Exact match",
    "crg": "CRG",
}
"""Columns about findings."""

BASELINES = {
    "constant_report": "Constant report",
    "all_normal": "All-normal report",
    "other_patient": "Another patient's report",
    "label_retrieval": "Retrieval by true labels (oracle, not blind)",
    "label_sentences": "Label head → template sentences (not blind)",
}
"""Row titles by the key `measure.scores` writes."""

SIGHTED = frozenset({"label_retrieval", "label_sentences"})
"""Baselines that know the true labels or see the scan, so a variant need not beat them."""

GAP = "Mismatch gap"
BEATS_BLIND = "†"
_BOUNDS = ("value", "low", "high")


def table_1(variants: Mapping[str, Sequence[Scores]], beta: float) -> Table:
    """The paper's Table 1 with precision, mismatch gap and the blind baselines.

    Args:
        variants: Row title, e.g. ``Origin``, to its scores, one per training seed.
        beta: Weight of the negatives where a variant has any.
    """
    return _table(f"Table 1. What negatives change (β = {beta:g})", "System", variants)


def table_2(betas: Mapping[float, Sequence[Scores]], strategy: str) -> Table:
    """The paper's Table 2: the weight β of the negatives; 0 is Origin.

    Args:
        betas: Weight to its scores, one per training seed.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    systems = {f"β = {beta:g}": results for beta, results in sorted(betas.items())}
    return _table(f"Table 2. Weight of the negatives ({strategy})", "Weight", systems)


def score_tables(runs: Mapping[str, Scores]) -> list[Table]:
    """Scores of runs on the same scans: one table about words, one about findings.

    Args:
        runs: Row title to its scores; the baselines are those of the first.
    """
    systems = {name: [scores] for name, scores in runs.items()}
    first = next(iter(runs.values()))
    words = {name: title for name, title in LANGUAGE.items() if name in first["model"]}
    check = first["cross_check"]
    note = (
        f"BLEU-4 of {check['scans']} scans of the first row, by us {check['bleu_4']:.6f}, by "
        f"sacrebleu {check['sacrebleu']:.6f} ({check['signature']})."
    )
    return [
        _table("Language", "System", systems, words, (note,)),
        _table("Findings", "System", systems, FOUND),
    ]


def _table(
    title: str,
    corner: str,
    systems: Mapping[str, Sequence[Scores]],
    metrics: Mapping[str, str] = METRICS,
    notes: tuple[str, ...] = (),
) -> Table:
    baselines = next(iter(systems.values()))[0]["baselines"]
    with_gap = any("gap" in scores for results in systems.values() for scores in results)
    rows: list[tuple[Cell | str, ...]] = []
    for name, results in systems.items():
        cells = _cells([scores["model"] for scores in results], metrics)
        if "coverage" in cells:
            blind = [baselines[each]["coverage"]["high"] for each in baselines.keys() - SIGHTED]
            cells["coverage"] = _marked(cells["coverage"], blind)
        gaps = [scores["gap"] for scores in results if "gap" in scores]
        rows.append((name, *cells.values(), *_gap_column(with_gap, gaps)))
    for name, scores in baselines.items():
        cells = _cells([scores], metrics)
        rows.append((BASELINES[name], *cells.values(), *_gap_column(with_gap, [])))
    return Table(
        title,
        (corner, *metrics.values(), *([GAP] if with_gap else [])),
        tuple(rows),
        (*_notes(systems, metrics, with_gap), *notes, RESEARCH_USE),
        rules=(len(systems),),
    )


def _gap_column(shown: bool, gaps: Sequence[Mapping[str, float]]) -> list[Cell | str]:
    if not shown:
        return []
    return [_mean(gaps) if gaps else UNDEFINED]


def _cells(
    scores: Sequence[Mapping[str, Any]], metrics: Mapping[str, str]
) -> dict[str, Cell | str]:
    return {metric: _mean([each[metric] for each in scores]) for metric in metrics}


def _mean(estimates: Sequence[Mapping[str, float | None]]) -> Cell | str:
    """Mean over seeds of value and bounds."""
    return cell_of({bound: _mean_of([e[bound] for e in estimates]) for bound in _BOUNDS})


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _marked(coverage: Cell | str, blind: Sequence[float | None]) -> Cell | str:
    known = [high for high in blind if high is not None]
    if isinstance(coverage, Cell) and len(known) == len(blind) and coverage.low > max(known):
        return replace(coverage, mark=BEATS_BLIND)
    return coverage


def _notes(
    systems: Mapping[str, Sequence[Scores]], metrics: Mapping[str, str], with_gap: bool
) -> list[str]:
    first = next(iter(systems.values()))[0]
    n = first["n"]
    notes = [
        f"{n['scans']} scans of {n['patients']} patients; in brackets the 95 % interval over "
        f"{n['resamples']} resamples of patients (seed {n['seed']}).",
    ]
    notes += reference_notes(n)
    if "coverage" in metrics:
        notes.append(
            f"{BEATS_BLIND} Coverage whose lower bound lies above every blind baseline's upper "
            "bound."
        )
        if first["model"]["coverage"]["value"] is None:
            notes.append(
                f"{UNDEFINED} is undefined: no reference states a finding, so there is nothing to "
                "cover, and CRG has no A to divide by."
            )
    if with_gap:
        notes.append(
            f"{GAP}: cross entropy of the true report on another patient's volume minus on the "
            "own, in nats per token; 0 means the scan is not looked at."
        )
    notes += [
        _seed_note(name, results, metrics) for name, results in systems.items() if len(results) > 1
    ]
    signatures: dict[str, list[str]] = {}
    for metric, title in metrics.items():
        # Without its name, the signature of BLEU-1 is that of BLEU-4.
        signature = first["model"][metric]["signature"].removeprefix(f"{metric}|")
        signatures.setdefault(signature, []).append(title)
    return notes + [f"{', '.join(titles)}: {text}" for text, titles in signatures.items()]


def reference_notes(n: Mapping[str, int]) -> list[str]:
    """What must be known of references that lack something."""
    notes = []
    if unlabelled := n.get("labels_read_from_text"):
        notes.append(
            f"The findings of {unlabelled} references were read from their text, as those of "
            "predictions are; no labels were given."
        )
    if n.get("training_scans") == 0:
        notes.append(f"Baselines: {LEAVE_ONE_OUT}.")
    if alone := n.get("scans_without_patient"):
        notes.append(
            f"{alone} scans name no patient, so each counts as a patient of its own; where it is "
            "not, intervals are too narrow and the baselines may know the patient."
        )
    if left_out := n.get("reports_left_out"):
        notes.append(f"{left_out} reports without findings are not scored.")
    return notes


def _seed_note(name: str, results: Sequence[Scores], metrics: Mapping[str, str]) -> str:
    ranges = []
    for metric, title in metrics.items():
        values = [scores["model"][metric]["value"] for scores in results]
        if None not in values:
            ranges.append(f"{title} {min(values):.3f} to {max(values):.3f}")
    return (
        f"{name}: values and bounds are means over {len(results)} training seeds; "
        f"range over seeds: {', '.join(ranges)}."
    )


HOLDS = "*"
TITLES = LANGUAGE | FOUND


def differences_table(base: str, comparison: Mapping[str, Any]) -> Table:
    """Metrics as rows, systems as columns; each cell is the system's score minus the base's.

    Args:
        base: Name of the system the others are compared with.
        comparison: What `measure.compare` returns.
    """
    differences, n = comparison["differences"], comparison["n"]
    metrics = [name for name in TITLES if any(name in rows for rows in differences.values())]
    rows = tuple(
        (TITLES[metric], *(_cell(found.get(metric)) for found in differences.values()))
        for metric in metrics
    )
    notes = (
        f"{n['scans']} scans of {n['patients']} patients; in brackets the 95 % interval over "
        f"{n['resamples']} paired resamples of patients (seed {n['seed']}).",
        f"{HOLDS} The difference holds: p < {comparison['alpha']:g} by approximate randomisation "
        f"over patients ({n['trials']} trials), adjusted by Holm over all {n['family']} "
        "comparisons.",
        *reference_notes(n),
        RESEARCH_USE,
    )
    return Table(f"Differences from {base}", ("Metric", *differences), rows, notes)


def table_3(base: str, comparison: Mapping[str, Any]) -> Table:
    """An experiment's `differences_table`."""
    table = differences_table(base, comparison)
    return replace(table, title=f"Table 3. {table.title}")


def _cell(found: Mapping[str, Any] | None) -> Cell | str:
    if found is None or found["low"] is None:
        return UNDEFINED
    mark = HOLDS if found["holds"] else ""
    return Cell(found["difference"], found["low"], found["high"], mark)


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


__all__ = [
    "BASELINES",
    "METRICS",
    "UNDEFINED",
    "Cell",
    "Table",
    "breakdown_tables",
    "cell_of",
    "differences_table",
    "score_tables",
    "table_1",
    "table_2",
    "table_3",
    "to_csv",
    "to_latex",
    "to_markdown",
]
