"""Scores of runs as tables: words, findings, single runs taken apart, and differences of runs.

In: what `scores.evaluate` and `measure.compare` return, or the files that hold it. Out:
`Table`. Systems are rows and metrics are columns: a metric is compared down one column, and
further baselines make a table longer, not wider.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import brief, read_json
from ctscribe.base.rows import Unfinished
from ctscribe.measure.baselines import LEAVE_ONE_OUT, SIGHTED, strongest_blind
from ctscribe.measure.predictions import tell_noticed
from ctscribe.show.tables import IN_BRACKETS, UNDEFINED, Table, Value, value_of

Scores = Mapping[str, Any]
"""What `evaluate` returns."""

LANGUAGE = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "bleu_mean": "BLEU, mean",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
"""Columns about words; METEOR is there where it was asked for, BLEU's mean in profile vlm3d."""

FOUND = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "coverage_macro": "Coverage, macro",
    "precision_macro": "Precision, macro",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "f1_per_report": "F1 per report",
    "coverage_per_report": "Coverage per report",
    "label_accuracy": "Label accuracy",
    "exact_match": "Exact match",
    "crg": "CRG",
}
"""Columns about findings."""

BY_MODELS = {
    "green": "GREEN",
    "ratescore": "RaTEScore",
    "radgraph_simple": "RadGraph-F1, entities",
    "radgraph_partial": "RadGraph-F1, with relations or without",
    "radgraph_complete": "RadGraph-F1, entities and relations",
    "radfact_ct_precision": "RadFact-CT precision",
    "radfact_ct_recall": "RadFact-CT recall",
    "radfact_ct_f1": "RadFact-CT F1",
    "f1radbert_ct_sample_acc": "F1RadBERT-CT, all labels the same",
    "bertscore": "BERTScore",
}
"""Columns of RadEval's metrics; each is there where it was asked for."""

TITLES = LANGUAGE | FOUND | BY_MODELS

LIKENESS = {
    "shared_token_share": "Words in shared sentences",
    "repeated_share": "Repeated reports",
    "self_bleu_4": "Self-BLEU-4",
}
"""Measures of `measure.scores` and their titles."""

BASELINES = {
    "constant_report": "Constant report",
    "all_normal": "All-normal report",
    "other_patient": "Another patient's report",
    "same_header": "Report of the most alike by age, sex, manufacturer",
    "label_retrieval": "Retrieval by true labels (oracle, not blind)",
    "label_sentences": "Label head → template sentences (not blind)",
}
"""Row titles by the key `measure.scores` writes; of chosen constants see `baseline_title`."""

GAP = "Mismatch gap"
BEATS_BLIND = "†"
STRONGEST = "‡"
HOLDS = "*"

_COUNTS = {"true_positives": "Right", "false_positives": "Wrong", "false_negatives": "Missed"}
_RATES = {"coverage": "Coverage", "precision": "Precision", "f1": "F1"}
_RANKING = {"auroc": "AUROC", "average_precision": "Average precision"}
_PLACES = (
    ("wrong_side", "sides_compared", "Wrong side"),
    ("wrong_size", "sizes_compared", "Wrong size"),
)
_SIDES = {"references": "References", "predictions": "Predictions", "both": "Both"}
_AGREEMENT = {
    "side_agreement": "Same side",
    "nodule_size_within_2_mm": "Nodule size within 2 mm",
    "nodule_size_error_mm": "Error of nodule size, mm",
}


def score_tables(runs: Mapping[str, Scores]) -> list[Table]:
    """Scores of runs on the same scans: one table about words, one about findings.

    Args:
        runs: Row title to its scores; the baselines are those of the first.
    """
    systems = {name: [scores] for name, scores in runs.items()}
    first = next(iter(runs.values()))
    words, by_models = (
        {name: title for name, title in titles.items() if name in first["model"]}
        for titles in (LANGUAGE, BY_MODELS)
    )
    check = first["cross_check"]
    note = (
        f"BLEU-4 of {check['scans']} scans of the first row, by us {check['bleu_4']:.6f}, by "
        f"sacrebleu {check['sacrebleu']:.6f} ({check['signature']})."
    )
    return [
        systems_table("Language", "System", systems, words, (note,)),
        systems_table("Findings", "System", systems, FOUND),
        *([_by_models(systems, by_models)] if by_models else []),
    ]


def _by_models(systems: Mapping[str, Sequence[Scores]], metrics: Mapping[str, str]) -> Table:
    unscored = {
        f"{title} of {name}": scores["model"][metric]["unscored"]
        for name, (scores, *_) in systems.items()
        for metric, title in metrics.items()
    }
    notes = [
        f"{what}: {count} reports are left out, for which RadEval gave no number."
        for what, count in unscored.items()
        if count
    ]
    return systems_table("Judged by models (RadEval)", "System", systems, metrics, notes)


def breakdown_tables(scores: Scores) -> list[Table]:
    """Findings and others, groups of scans, agreement on sides and sizes, likeness of reports.

    With a label head also how well its probabilities rank scans.
    """
    ranked = [_ranking(scores["ranking"])] if "ranking" in scores else []
    return [
        _findings(scores),
        _other_findings(scores),
        *ranked,
        _groups(scores),
        _agreement(scores),
        _likeness(scores),
    ]


def differences_table(base: str, comparison: Mapping[str, Any]) -> Table:
    """Metrics as rows, systems as columns; each cell is the system's score minus the base's.

    Args:
        base: Name of the system the others are compared with.
        comparison: What `measure.compare` returns.
    """
    differences, n = comparison["differences"], comparison["n"]
    missing = {base: comparison.get("missing_of_base", ())} | comparison.get("missing", {})
    metrics = [name for name in TITLES if any(name in rows for rows in differences.values())]
    rows = tuple(
        (TITLES[metric], *(_difference(found.get(metric)) for found in differences.values()))
        for metric in metrics
    )
    notes = (
        f"{n['scans']} scans of {n['patients']} patients; {IN_BRACKETS}",
        f"{HOLDS} The difference holds: p < {comparison['alpha']:g} by approximate randomisation "
        f"over patients ({n['trials']} trials), adjusted by Holm over all {n['family']} "
        "comparisons.",
        *_missing_notes(missing, n),
        *reference_notes(n),
        RESEARCH_USE,
    )
    return Table(f"Differences from {base}", ("Metric", *differences), rows, notes)


def tables_of(paths: Sequence[Path]) -> list[Table]:
    """The tables of one comparison, or of the scores of one or several runs.

    Several runs stand in common tables; one run is also taken apart.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_JSON``, and ``E_SCORES`` for files of another kind, or
            for runs that were scored on different scans.
    """
    content = {name: read_json(path) for name, path in run_names(paths).items()}
    for name, scores in content.items():
        is_comparison = "differences" in scores and len(content) == 1
        is_scores = {"model", "baselines", "n"} <= scores.keys() and scores["baselines"]
        if not is_comparison and not is_scores:
            raise _no_scores(name, "has no scores")
    try:
        return _tables_of(content)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        found = f"some are not there, or in another form ({brief(error)})"
        raise _no_scores(", ".join(content), found) from error


def _tables_of(content: Mapping[str, Scores]) -> list[Table]:
    first, *others = content.values()
    if "differences" in first:
        return [differences_table(first["base"], first)]
    for name, scores in content.items():
        _require_same_scans(name, scores, first)
    runs = score_tables(content)
    return runs if others else [*runs, *breakdown_tables(first)]


def _no_scores(name: str, found: str) -> CtscribeError:
    return CtscribeError(
        "E_SCORES",
        f"{name} must be what `ctscribe evaluate` or `ctscribe compare` wrote, but {found}",
    )


def run_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Shortest names that tell files or folders apart: their own, with as many above as it takes.

    Raises:
        CtscribeError: ``E_SCORES`` when one is given twice.
    """
    whole = [path.resolve() if path.is_dir() else path.resolve().with_suffix("") for path in paths]
    if len(set(whole)) < len(whole):
        raise CtscribeError("E_SCORES", "every run must be given once, but one is given twice")
    parts = 1
    while len({path.parts[-parts:] for path in whole}) < len(whole):
        parts += 1
    return {"/".join(name.parts[-parts:]): path for name, path in zip(whole, paths, strict=True)}


def systems_table(
    title: str,
    corner: str,
    systems: Mapping[str, Sequence[Scores]],
    metrics: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Table:
    """Systems, then the baselines of the first; scores are means over a system's training seeds.

    Args:
        corner: What the first column holds.
        systems: Row title to scores, one per training seed; with ``gap`` where it was measured.
        metrics: Key to the title of its column.
        notes: Behind those every such table has.
    """
    baselines = next(iter(systems.values()))[0]["baselines"]
    strongest = strongest_blind(baselines)
    bars = {
        metric: baselines[name][metric]
        for metric, name in strongest.items()
        if all(baselines[each][metric]["value"] is not None for each in baselines.keys() - SIGHTED)
    }
    with_gap = any("gap" in scores for results in systems.values() for scores in results)
    rows: list[tuple[Value | str, ...]] = []
    for name, results in systems.items():
        values = _means([scores["model"] for scores in results], metrics)
        marked = (_marked(values[metric], bars.get(metric)) for metric in metrics)
        gaps = [scores["gap"] for scores in results if "gap" in scores]
        gap = [_mean(gaps) if gaps else UNDEFINED] if with_gap else []
        rows.append((name, *marked, *gap))
    for name, scores in baselines.items():
        gap = [UNDEFINED] if with_gap else []
        values = _means([scores], metrics)
        cells = (
            _with_mark(values[metric], STRONGEST if strongest.get(metric) == name else "")
            for metric in metrics
        )
        rows.append((baseline_title(name), *cells, *gap))
    return Table(
        title,
        (corner, *metrics.values(), *([GAP] if with_gap else [])),
        tuple(rows),
        (*_notes(systems, metrics, with_gap), *notes, RESEARCH_USE),
        rules=(len(systems),),
    )


def _means(
    scores: Sequence[Mapping[str, Any]], metrics: Mapping[str, str]
) -> dict[str, Value | str]:
    return {metric: _mean([each[metric] for each in scores]) for metric in metrics}


def _mean(estimates: Sequence[Mapping[str, float | None]]) -> Value | str:
    """Mean over seeds of value and bounds; undefined where it is for one of them."""
    means: dict[str, Any] = {}
    for bound in ("value", "low", "high"):
        known = [each for estimate in estimates if (each := estimate[bound]) is not None]
        means[bound] = fmean(known) if len(known) == len(estimates) else None
    return value_of(next((means | few for few in map(_too_few, estimates) if few), means))


def _too_few(score: Mapping[str, Any]) -> dict[str, int]:
    return {key: score[key] for key in score if key == "too_few_patients"}


def baseline_title(name: str) -> str:
    """The row title of a baseline."""
    if name.startswith("commonest_"):
        count = name.removeprefix("commonest_")
        few = {"0": "no finding", "1": "the commonest finding"}
        return f"Constant: {few.get(count, f'the {count} commonest findings')}"
    if name.startswith("best_"):
        return f"Constant: the report best for {TITLES[name.removeprefix('best_')]}"
    return BASELINES[name]


def _marked(score: Value | str, bar: Mapping[str, Any] | None) -> Value | str:
    """With a mark where even the lower bound lies above the strongest blind baseline's upper."""
    if not isinstance(score, Value) or score.low is None or bar is None or bar["high"] is None:
        return score
    return _with_mark(score, BEATS_BLIND if score.low > bar["high"] else "")


def _with_mark(score: Value | str, mark: str) -> Value | str:
    return replace(score, mark=mark) if isinstance(score, Value) else score


def _notes(
    systems: Mapping[str, Sequence[Scores]], metrics: Mapping[str, str], with_gap: bool
) -> list[str]:
    first = next(iter(systems.values()))[0]
    n = first["n"]
    notes = [
        f"{n['scans']} scans of {n['patients']} patients; {IN_BRACKETS}",
    ]
    missing = {
        name: {scan for scores in results for scan in scores.get("missing", ())}
        for name, results in systems.items()
    }
    notes += [*_missing_notes(missing, n), *reference_notes(n)]
    if "bleu_1" in metrics:
        notes += [note for each in systems.items() for note in _challenge_note(*each)]
    cut = {name: cut_short(*results) for name, results in systems.items()}
    notes += [f"{name}: {each}." for name, each in cut.items() if each.count]
    notes.append(
        f"{STRONGEST} The strongest blind baseline for this metric. {BEATS_BLIND} The lower bound "
        "lies above its upper bound; a score without this mark says nothing about the scan."
    )
    if "same_header" not in first["baselines"]:
        notes.append("No baseline goes by age, sex and manufacturer: none is known of these scans.")
    if "coverage" in metrics and first["model"]["coverage"]["value"] is None:
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


def _missing_notes(missing: Mapping[str, Collection[str]], n: Mapping[str, int]) -> list[str]:
    return [
        f"{name}: {len(scans)} of {n['scans']} scans have no report, which counts as an empty one."
        for name, scans in missing.items()
        if scans
    ]


def cut_short(*results: Scores) -> Unfinished:
    """Reports of one system, over all its seeds, that ran into the length limit."""
    told = [scores.get("unfinished", {"count": 0, "known": 0}) for scores in results]
    return Unfinished(sum(each["count"] for each in told), sum(each["known"] for each in told))


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
    return [*notes, *(f"{sentence}." for sentence in tell_noticed(n))]


def _challenge_note(name: str, results: Sequence[Scores]) -> list[str]:
    """What the challenge's scorer would say of a system whose reports are not complete."""
    found = [scores.get("language_of_written") for scores in results]
    return [
        f"{name}: the challenge's scorer leaves out scans without a report, and of the "
        f"{one['scans']} others has "
        + ", ".join(f"{LANGUAGE[metric]} {one[metric]:.4f}" for metric in LANGUAGE if metric in one)
        + "."
        for one in found
        if one
    ]


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


def _difference(found: Mapping[str, Any] | None) -> Value | str:
    if found is None:
        return UNDEFINED
    mark = HOLDS if found["holds"] else ""
    return Value(found["difference"], found["low"], found["high"], mark)


def _findings(scores: Scores) -> Table:
    found = scores["per_finding"]
    rows = tuple(
        (
            row["finding"],
            *(value_of(row[rate]) for rate in _RATES),
            *(str(row[count]) for count in _COUNTS),
            *(_part_of(row, wrong, of) for wrong, of, _ in _PLACES),
        )
        for row in sorted(found, key=lambda row: -(row["true_positives"] + row["false_negatives"]))
    )
    places = (title for _, _, title in _PLACES)
    columns = ("Finding", *_RATES.values(), *_COUNTS.values(), *places)
    notes = (
        "Most frequent first; right, wrong and missed count scans.",
        "Wrong side, of the scans for which both reports state the finding and a side; wrong size, "
        "of those for which both give one, where it is off by more than 2 mm and a fifth.",
    )
    return Table("Each finding", columns, rows, notes)


def _part_of(row: Mapping[str, Any], part: str, whole: str) -> str:
    """Undefined where nothing can be compared, and in scores of older versions."""
    return f"{row[part]} of {row[whole]}" if row.get(whole) else UNDEFINED


def _other_findings(scores: Scores) -> Table:
    rows = tuple(
        (row["finding"], *(str(row[side]) for side in _SIDES))
        for row in scores.get("other_findings", ())
    )
    notes = (
        "Reports that state what the 18 findings cannot say, read by the same rules; none of it "
        "counts in any score.",
    )
    return Table("Outside the 18 findings", ("Finding", *_SIDES.values()), rows, notes)


def _ranking(found: Mapping[str, Any]) -> Table:
    rows = [
        (row["finding"], str(row["positives"]), *(value_of(row[name]) for name in _RANKING))
        for row in sorted(found["per_finding"], key=lambda row: -row["positives"])
    ]
    macro = ("Mean over findings", "", *(value_of(found["macro"][name]) for name in _RANKING))
    columns = ("Finding", "Scans with it", *_RANKING.values())
    told = {name: found["macro"][name]["signature"].partition("|")[2] for name in _RANKING}
    notes = tuple(f"{title}: {told[name]}" for name, title in _RANKING.items())
    return Table(
        "Probabilities of the label head", columns, (*rows, macro), notes, rules=(len(rows),)
    )


def _groups(scores: Scores) -> Table:
    rows: list[tuple[Value | str, ...]] = []
    rules: list[int] = []
    last = None
    for row in scores["strata"]:
        if last not in (None, row["grouping"]):
            rules.append(len(rows))
        last = row["grouping"]
        cells = (value_of(row[name]) for name in (*_RATES, "nodule_coverage"))
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
    rows = tuple((title, value_of(found[name])) for name, title in _AGREEMENT.items())
    # A signature is the metric's key, a bar, and its definition.
    told = {name: found[name]["signature"].partition("|")[2] for name in _AGREEMENT}
    notes = tuple(f"{title}: {told[name]}." for name, title in _AGREEMENT.items())
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


def _require_same_scans(name: str, scores: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    if any(scores["n"][key] != first["n"][key] for key in ("scans", "patients")):
        raise CtscribeError(
            "E_SCORES",
            f"runs in one table must be scored on the same scans, but {name} has "
            f"{scores['n']['scans']} scans and the first {first['n']['scans']}",
        )
