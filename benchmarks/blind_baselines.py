"""What blindness scores on human-labelled reports, written to docs/results/blind_baselines.md.

Usage: python benchmarks/blind_baselines.py LABELLED_REPORTS.csv

Every report is answered by a report from the other four fifths of the file, so nothing is scored
on the reports it was chosen from. Only numbers are written.
"""

import csv
import sys
from pathlib import Path

from ctscribe.config import EvaluateConfig
from ctscribe.evaluate.baselines import RULES, Report, choose_reports
from ctscribe.evaluate.clinical import CLINICAL_METRICS
from ctscribe.evaluate.intervals import draw_patients, patient_index
from ctscribe.evaluate.language import LANGUAGE_METRICS, Profile
from ctscribe.evaluate.scans import Answers, read_labels
from ctscribe.evaluate.scores import scan_statistics, score_table
from ctscribe.files import write_text
from ctscribe.reports.findings import FINDINGS

FOLDS = 5
OUT = Path(__file__).parents[1] / "docs" / "results" / "blind_baselines.md"


def read_reports(path: Path) -> list[Report]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Report(
                row["AccessionNo"],
                row["AccessionNo"],
                row["report_text"],
                tuple(int(row[finding]) for finding in FINDINGS),
            )
            for row in csv.DictReader(file)
        ]


def choose_across_folds(reports: list[Report], seed: int) -> dict[str, list[Report]]:
    """For each report, the one that each baseline picks from the other folds."""
    chosen: dict[str, list[Report]] = {name: list(reports) for name in RULES}
    for fold in range(FOLDS):
        inside = range(fold, len(reports), FOLDS)
        outside = [report for i, report in enumerate(reports) if i % FOLDS != fold]
        picked = choose_reports(outside, [reports[i] for i in inside], seed)
        for name, row in picked.items():
            for i, report in zip(inside, row, strict=True):
                chosen[name][i] = report
    return chosen


def table(reports: list[Report], profile: Profile, metrics: tuple[str, ...]) -> list[str]:
    config = EvaluateConfig()
    patients = patient_index([report.patient_id for report in reports])
    draws = draw_patients(len(reports), config.resamples, config.seed)
    lines = ["| baseline | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name, chosen in choose_across_folds(reports, config.seed).items():
        texts = tuple(report.text for report in chosen)
        answers = Answers(texts, tuple(read_labels(text) for text in texts))
        scores = score_table(scan_statistics(answers, reports, profile), patients, draws, profile)
        cells = (scores[metric] for metric in metrics)
        shown = (f"{c['value']:.3f} ({c['low']:.3f}–{c['high']:.3f})" for c in cells)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def main(path: Path) -> None:
    reports = read_reports(path)
    lines = [
        "# What a report writer scores without looking",
        "",
        f"{len(reports)} real CT-RATE reports whose 18 findings were labelled by people; every "
        "report is answered by one from the other four fifths of the file. Stated findings are "
        "read by the rule labeler, true ones are the human labels. In brackets: 95 % interval, "
        f"{EvaluateConfig().resamples} draws of patients, seed {EvaluateConfig().seed}.",
        "",
        "Made by `python benchmarks/blind_baselines.py LABELLED_REPORTS.csv`; the file holds "
        "`AccessionNo`, `report_text` and the 18 label columns.",
        "",
        *(f"- `{name}`: {rule}" for name, rule in RULES.items()),
        "",
        "## Language, profile `ctrate-raw`",
        "",
        *table(reports, "ctrate-raw", LANGUAGE_METRICS),
        "",
        "## Language, profile `r2gen`",
        "",
        *table(reports, "r2gen", LANGUAGE_METRICS),
        "",
        "## Findings",
        "",
        *table(reports, "ctrate-raw", tuple(CLINICAL_METRICS)),
        "",
    ]
    write_text(OUT, "\n".join(lines))
    print(f"Written to {OUT}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
