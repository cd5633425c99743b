"""What blindness scores on human-labelled reports.

``make bench NAME=blind ARGS=LABELLED_REPORTS.csv``; the file is that of `bench_labeler`.

Every report is answered by a report from the other four fifths of the file, so nothing is scored
on the reports it was chosen from. Only numbers are written; the page is made of the raw file
beside it.
"""

from pathlib import Path
from typing import Any

from benchmarks.harness import interval, labelled_reports, report, table
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.baselines import BASELINE_RULES, write_baselines
from ctscribe.measure.clinical import CLINICAL_METRICS
from ctscribe.measure.intervals import Resampler
from ctscribe.measure.language import LANGUAGE_METRICS, Profile
from ctscribe.measure.scans import RULES, ScanReport, Sections, read_answers
from ctscribe.measure.scores import template_statistics
from ctscribe.measure.statistics import scan_statistics, score_table

FOLDS = 5
PROFILES: tuple[Profile, ...] = ("ctrate-raw", "r2gen")
CONFIG = EvaluateConfig()


def write_across_folds(reports: list[ScanReport], seed: int) -> dict[str, list[Sections]]:
    """For each report, what each baseline writes after seeing the other folds alone."""
    written: dict[str, list[Sections]] = {
        name: [("", "")] * len(reports) for name in BASELINE_RULES
    }
    for fold in range(FOLDS):
        inside = range(fold, len(reports), FOLDS)
        outside = [report for i, report in enumerate(reports) if i % FOLDS != fold]
        truth = [reports[i] for i in inside]
        true_labels = {report.scan_id: report.labels for report in truth}
        for name, row in write_baselines(outside, truth, seed, true_labels).items():
            for i, sections in zip(inside, row, strict=True):
                written[name][i] = sections
    return written


def measure(path: Path) -> dict[str, Any]:
    reports = labelled_reports(path)
    patients = [report.patient_id for report in reports]
    resampler = Resampler.of(patients, CONFIG.resamples, CONFIG.seed)
    scores: dict[str, dict[str, Any]] = {profile: {} for profile in PROFILES}
    for name, sections in write_across_folds(reports, CONFIG.seed).items():
        answers = read_answers(sections)
        for profile in PROFILES:
            statistics = scan_statistics(answers, reports, profile)
            scores[profile][name] = score_table(statistics, resampler, profile, RULES.name)
    sections = [report.sections for report in reports]
    return {
        "reports": len(reports),
        "reports_sha256": sha256_of_file(path),
        "folds": FOLDS,
        "resamples": CONFIG.resamples,
        "seed": CONFIG.seed,
        "scores": scores,
        "template": template_statistics(sections, patients, CONFIG.seed),
    }


def page(raw: dict[str, Any]) -> dict[str, Any]:
    rules = BASELINE_RULES | {
        "label_sentences": BASELINE_RULES["label_sentences"]
        + "; here the true labels, so an oracle"
    }

    def scores(profile: Profile, metrics: tuple[str, ...]) -> str:
        rows = [
            (name, *(interval(found[metric]) for metric in metrics))
            for name, found in raw["scores"][profile].items()
        ]
        return table(("baseline", *metrics), rows)

    return {
        **raw,
        "rules": "\n".join(f"- `{name}`: {rule}" for name, rule in rules.items()),
        "raw": scores("ctrate-raw", LANGUAGE_METRICS),
        "r2gen": scores("r2gen", LANGUAGE_METRICS),
        "findings": scores("ctrate-raw", tuple(CLINICAL_METRICS)),
    }


if __name__ == "__main__":
    report("blind", measure, page)
