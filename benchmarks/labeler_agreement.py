"""How the rule labeler agrees with people, written to docs/results/labeler.md.

Usage: python benchmarks/labeler_agreement.py LABELLED_REPORTS.csv

Only numbers are written.
"""

import csv
import sys
import time
from pathlib import Path

import numpy as np

from ctscribe.evaluate.clinical import (
    clinical_scores,
    clinical_statistics,
    finding_counts,
    finding_scores,
)
from ctscribe.files import write_text
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import label_report

OUT = Path(__file__).parents[1] / "docs" / "results" / "labeler.md"


def main(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    began = time.process_time()
    stated = [label_report(row["report_text"]) for row in rows]
    seconds = time.process_time() - began
    true = [tuple(int(row[finding]) for finding in FINDINGS) for row in rows]
    totals = clinical_statistics(predictions=stated, references=true).sum(axis=0, keepdims=True)
    overall, per_finding = clinical_scores(totals), finding_scores(totals)
    counts = finding_counts(totals)
    lines = [
        "# The rule labeler against people",
        "",
        f"{len(rows)} real CT-RATE reports with the 18 findings labelled by people; the rules were "
        "developed on them, so these numbers are not those of unseen reports. Some human labels "
        "contradict their report, which bounds the agreement.",
        "",
        "Made by `python benchmarks/labeler_agreement.py LABELLED_REPORTS.csv`.",
        "",
        f"Macro-F1 {overall['f1_macro'][0]:.3f}, micro-F1 {overall['f1'][0]:.3f}, label accuracy "
        f"{overall['label_accuracy'][0]:.3f}, all 18 right {overall['exact_match'][0]:.3f}, lowest "
        f"F1 {np.nanmin(per_finding['f1']):.3f}; {len(rows) / seconds:.0f} reports a second on one "
        "core.",
        "",
        "| finding | F1 | recall | precision | hits | false alarms | misses |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {finding} | {per_finding['f1'][0, i]:.3f} | {per_finding['coverage'][0, i]:.3f} | "
            f"{per_finding['precision'][0, i]:.3f} | {counts['true_positives'][i]} | "
            f"{counts['false_positives'][i]} | {counts['false_negatives'][i]} |"
            for i, finding in enumerate(FINDINGS)
        ),
        "",
    ]
    write_text(OUT, "\n".join(lines))
    print(f"Written to {OUT}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
