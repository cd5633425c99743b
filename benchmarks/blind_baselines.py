"""What blindness scores on human-labelled reports, written to docs/results/blind_baselines.md.

Usage: make blind-baselines REPORTS=LABELLED_REPORTS.csv

Every report is answered by a report from the other four fifths of the file, so nothing is scored
on the reports it was chosen from. Only numbers are written; the page is made of the raw file
beside it.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from ctscribe.base.files import sha256_of_file, write_json, write_text
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.runs import provenance
from ctscribe.measure.baselines import (
    BASELINE_RULES,
    RULE,
    choose_reports,
    reports_from_labels,
    unseen_patients,
)
from ctscribe.measure.clinical import CLINICAL_METRICS
from ctscribe.measure.intervals import Resampler
from ctscribe.measure.language import LANGUAGE_METRICS, Profile
from ctscribe.measure.likeness import template_statistics
from ctscribe.measure.scans import RULES, ScanReport, Sections, read_answers
from ctscribe.measure.statistics import scan_statistics, score_table
from ctscribe.text.findings import FINDINGS

FOLDS = 5
PROFILES: tuple[Profile, ...] = ("ctrate-raw", "r2gen")
CONFIG = EvaluateConfig()
FOLDER = Path(__file__).parents[1] / "docs" / "results"
PAGE, RAW = FOLDER / "blind_baselines.md", FOLDER / "blind_baselines.json"


def read_reports(path: Path) -> list[ScanReport]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            ScanReport(
                row["AccessionNo"],
                row["AccessionNo"],
                row["report_text"],
                "",
                tuple(int(row[finding]) for finding in FINDINGS),
            )
            for row in csv.DictReader(file)
        ]


def write_across_folds(reports: list[ScanReport], seed: int) -> dict[str, list[Sections]]:
    """For each report, what each baseline writes after seeing the other folds alone."""
    names = (*BASELINE_RULES, "label_sentences")
    written: dict[str, list[Sections]] = {name: [("", "")] * len(reports) for name in names}
    for fold in range(FOLDS):
        inside = range(fold, len(reports), FOLDS)
        outside = [report for i, report in enumerate(reports) if i % FOLDS != fold]
        truth = [reports[i] for i in inside]
        picked = {
            name: [report.sections for report in chosen]
            for name, chosen in choose_reports(outside, truth, seed).items()
        }
        true_labels = [report.labels for report in truth]
        picked["label_sentences"] = reports_from_labels(
            outside, true_labels, unseen_patients(outside, truth)
        )
        for name, row in picked.items():
            for i, sections in zip(inside, row, strict=True):
                written[name][i] = sections
    return written


def measure(path: Path) -> dict[str, Any]:
    reports = read_reports(path)
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
        **provenance(),
    }


def table(scores: dict[str, Any], metrics: tuple[str, ...]) -> list[str]:
    lines = ["| baseline | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name, found in scores.items():
        cells = (found[metric] for metric in metrics)
        shown = (f"{c['value']:.3f} ({c['low']:.3f}–{c['high']:.3f})" for c in cells)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def page(raw: dict[str, Any]) -> str:
    rules = BASELINE_RULES | {"label_sentences": f"{RULE}; here the true labels, so an oracle"}
    template = raw["template"]
    raw_scores, r2gen_scores = (raw["scores"][profile] for profile in PROFILES)
    lines = [
        "# What a report writer scores without looking",
        "",
        f"{raw['reports']} real CT-RATE reports whose 18 findings were labelled by people; every "
        f"report is answered from the other {FOLDS - 1} fifths of the file. Stated findings are "
        "read by the rule labeler, true ones are the human labels. In brackets: 95 % interval, "
        f"{raw['resamples']} draws of reports (one per patient), seed {raw['seed']}.",
        "",
        "Made by `make blind-baselines REPORTS=LABELLED_REPORTS.csv` from a file with "
        "`AccessionNo`, `report_text` and the 18 label columns; the numbers, their signatures and "
        "the versions are in `blind_baselines.json`.",
        "",
        f"Of all words, {template['shared_token_share']:.1%} stand in sentences that at least 1 % "
        f"of the patients share; {template['distinct_reports']} reports are distinct; self-BLEU-4 "
        f"is {template['self_bleu_4']:.3f}.",
        "",
        *(f"- `{name}`: {rule}" for name, rule in rules.items()),
        "",
        "## Language, profile `ctrate-raw`",
        "",
        *table(raw_scores, LANGUAGE_METRICS),
        "",
        "## Language, profile `r2gen`",
        "",
        *table(r2gen_scores, LANGUAGE_METRICS),
        "",
        "## Findings",
        "",
        *table(raw_scores, tuple(CLINICAL_METRICS)),
        "",
        "`label_sentences` is told the true labels and says them in sentences the labeler reads, "
        "so its 1.000 is by construction; its language scores are what perfect labels and no "
        "report writer reach.",
        "",
    ]
    return "\n".join(lines)


def main(path: Path) -> None:
    raw = measure(path)
    write_json(RAW, raw)
    write_text(PAGE, page(raw))
    print(f"Written to {PAGE} and {RAW}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
