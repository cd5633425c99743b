"""Tables 1 and 2, and the scores of single runs, with what blindness scores below.

Systems are rows and metrics are columns: a metric is compared down one column, and further
baselines make a table longer, not wider.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.evaluate.baselines import LEAVE_ONE_OUT
from ctscribe.tables.table import UNDEFINED, Cell, Table, cell_of

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "coverage": "Coverage",
    "precision": "Precision",
    "label_accuracy": "Accuracy",
}
"""Columns of Tables 1 and 2, by the key `evaluate.scores` writes; more is better in each."""

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
"""Row titles by the key `evaluate.scores` writes."""

SIGHTED = frozenset({"label_retrieval", "label_sentences"})
"""Baselines that know the true labels or see the scan, so a variant need not beat them."""

Scores = Mapping[str, Any]
"""What `evaluate.scores` writes, and ``gap`` = {value, low, high} in nats per token if measured."""

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
