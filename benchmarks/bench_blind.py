"""What blindness scores on human-labelled reports.

``make bench NAME=blind ARGS=LABELLED_REPORTS.csv``; the file is that of `bench_labeler`.

Every report is answered by a report from the other four fifths of the file, so nothing is scored
on the reports it was chosen from. Only numbers are written; the page is made of the raw file
beside it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import interval, labelled_reports, report, table
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.types import Labels
from ctscribe.measure.baselines import BASELINE_RULES, write_baselines
from ctscribe.measure.clinical import CLINICAL_METRICS
from ctscribe.measure.constants import CHOSEN_FOR, best_counts, best_reports, commonest_findings
from ctscribe.measure.intervals import Jackknife
from ctscribe.measure.language import LANGUAGE_METRICS, Profile
from ctscribe.measure.scans import RULES, Answers, ScanReport, Sections, read_answers
from ctscribe.measure.scores import template_statistics
from ctscribe.measure.statistics import scan_statistics, score_table
from ctscribe.text.findings import FINDINGS

FOLDS = 5
PROFILES: tuple[Profile, ...] = ("ctrate-raw", "r2gen")
CONFIG = EvaluateConfig()
FIXED = ("constant_report", "all_normal", "other_patient", "label_retrieval", "label_sentences")
"""Baselines that every fold has by the same name."""
SHOWN = ("coverage", "precision", "f1", "f1_macro", "label_accuracy", "exact_match", "crg")
"""Of each number of commonest findings."""
Reports = Sequence[ScanReport]


def across_folds(
    reports: Reports, answer: Callable[[Reports, Reports], dict[str, Answers]]
) -> dict[str, Answers]:
    """What each system answers after seeing the other folds alone, (outside, inside) → answers."""
    written: dict[str, dict[int, tuple[Sections, Labels]]] = {}
    for fold in range(FOLDS):
        inside = range(fold, len(reports), FOLDS)
        outside = [each for i, each in enumerate(reports) if i % FOLDS != fold]
        for name, found in answer(outside, reports[fold::FOLDS]).items():
            both = zip(found.sections, found.labels, strict=True)
            written.setdefault(name, {}).update(zip(inside, both, strict=True))
    in_order = {name: [row[i] for i in range(len(reports))] for name, row in written.items()}
    return {
        name: Answers(tuple(each for each, _ in rows), tuple(each for _, each in rows))
        for name, rows in in_order.items()
    }


def fixed(outside: Reports, inside: Reports) -> dict[str, Answers]:
    """The baselines that need no choice for a metric."""
    true_labels = {each.scan_id: each.labels for each in inside}
    written = write_baselines(outside, inside, CONFIG.seed, true_labels)
    return {name: written[name].answers(RULES) for name in FIXED}


def chosen_words(profile: Profile, outside: Reports, inside: Reports) -> dict[str, Answers]:
    """For each metric of words the best training report."""
    ranked = best_reports(outside, profile, CONFIG.seed)
    return {
        metric: read_answers([reports[0].sections] * len(inside))
        for metric, reports in ranked.items()
    }


def stating(labels: Sequence[Labels]) -> Answers:
    return Answers((("", ""),) * len(labels), tuple(labels))


def chosen_findings(outside: Reports, inside: Reports) -> dict[str, Answers]:
    """For each metric of findings the best number of the commonest."""
    nobody = [None] * len(inside)
    return {
        metric: stating(commonest_findings(outside, count, nobody))
        for metric, count in best_counts(outside).items()
    }


def commonest(outside: Reports, inside: Reports) -> dict[str, Answers]:
    """Every number of the commonest."""
    nobody = [None] * len(inside)
    counts = range(len(FINDINGS) + 1)
    return {str(k): stating(commonest_findings(outside, k, nobody)) for k in counts}


def measure(path: Path) -> dict[str, Any]:
    reports = labelled_reports(path)
    patients = [each.patient_id for each in reports]
    jackknife = Jackknife.of(patients)

    def scored(answers: Answers, profile: Profile) -> dict[str, Any]:
        rows = scan_statistics(answers, reports, profile)
        return score_table(rows, jackknife, profile, RULES.name)

    scores: dict[str, dict[str, Any]] = {}
    answers = across_folds(reports, fixed)
    for profile in PROFILES:
        found = across_folds(reports, lambda *folds, p=profile: chosen_words(p, *folds))
        best = {f"best_{metric}": each for metric, each in found.items()}
        scores[profile] = {n: scored(each, profile) for n, each in (answers | best).items()}
    chosen = across_folds(reports, chosen_findings)
    sections = [each.sections for each in reports]
    return {
        "reports": len(reports),
        "reports_sha256": sha256_of_file(path),
        "folds": FOLDS,
        "seed": CONFIG.seed,
        "scores": scores,
        "chosen": {name: scored(each, "ctrate-raw")[name] for name, each in chosen.items()},
        "chosen_counts": best_counts(reports),
        "by_count": {
            count: {name: found[name] for name in SHOWN}
            for count, each in across_folds(reports, commonest).items()
            if (found := scored(each, "ctrate-raw"))
        },
        "template": template_statistics(sections, patients, CONFIG.seed),
    }


def page(raw: dict[str, Any]) -> dict[str, Any]:
    rules = {name: BASELINE_RULES[name] for name in FIXED}
    rules["label_sentences"] += "; here the true labels, so an oracle"
    rules |= {f"best_{name}": BASELINE_RULES["best"].format(metrics=name) for name in CHOSEN_FOR}

    def scores(profile: Profile, metrics: tuple[str, ...], without: str = " ") -> str:
        rows = [
            (name, *(interval(found[metric]) for metric in metrics))
            for name, found in raw["scores"][profile].items()
            if not name.startswith(without)
        ]
        return table(("baseline", *metrics), rows)

    chosen = [
        (name, raw["chosen_counts"][name], interval(found)) for name, found in raw["chosen"].items()
    ]
    by_count = [
        (count, *(interval(found[name]) for name in SHOWN))
        for count, found in raw["by_count"].items()
    ]
    return {
        **raw,
        "rules": "\n".join(f"- `{name}`: {rule}" for name, rule in rules.items()),
        "raw": scores("ctrate-raw", LANGUAGE_METRICS),
        "r2gen": scores("r2gen", LANGUAGE_METRICS),
        "findings": scores("ctrate-raw", tuple(CLINICAL_METRICS), "best"),
        "constants": table(("metric", "findings stated", "score"), chosen),
        "counts": table(("findings stated", *SHOWN), by_count),
    }


if __name__ == "__main__":
    report("blind", measure, page)
