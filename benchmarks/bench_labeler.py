"""How the rule labeler agrees with people, and how fast it reads.

``make bench NAME=labeler ARGS=LABELLED_REPORTS.csv``; the file has AccessionNo, report_text and
the 18 findings. Writes results/labeler.json, which holds numbers only, and the page made of it.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import interval, labelled_reports, report, table
from ctscribe.base.types import Labels
from ctscribe.measure.clinical import (
    clinical_scores,
    clinical_statistics,
    finding_counts,
    finding_scores,
)
from ctscribe.measure.intervals import RATE, sums_without_each, with_interval
from ctscribe.measure.statistics import kind_of
from ctscribe.text import labeler, sections
from ctscribe.text.findings import FINDINGS


def measure(path: Path) -> dict[str, Any]:
    reports = labelled_reports(path)
    texts = [report.findings for report in reports]
    stated = [labeler.label_report(text) for text in texts]
    return {
        **agreement(stated, [report.labels for report in reports]),
        "speed": {
            "reports_per_second": timed(texts, remembering=True),
            "reports_per_second_without_memory": timed(texts, remembering=False),
            "words_per_report": float(np.mean([len(text.split()) for text in texts])),
        },
    }


def forget() -> None:
    for read in (labeler.label_report, labeler._read_sentence, sections.sentence_spans):
        read.cache_clear()


def timed(texts: list[str], *, remembering: bool) -> float:
    """Reports per second of CPU time, median of three passes that start with an empty memory."""
    rates = []
    for _ in range(3):
        forget()
        seconds = 0.0
        for text in texts:
            if not remembering:
                forget()
            began = time.process_time()
            labeler.label_report(text)
            seconds += time.process_time() - began
        rates.append(len(texts) / seconds)
    return float(np.median(rates))


def agreement(stated: list[Labels], true: list[Labels]) -> dict[str, Any]:
    statistics = clinical_statistics(predictions=stated, references=true)
    total, others = sums_without_each(statistics)  # a patient each
    point, without = clinical_scores(total), clinical_scores(others)
    by_finding, without_by_finding = finding_scores(total), finding_scores(others)
    rests_on = {name: np.isfinite(of) for name, of in finding_scores(statistics).items()}
    counts = finding_counts(total)
    halves = {"even": statistics[1::2], "odd": statistics[0::2]}
    names = ("f1_macro", "f1", "label_accuracy", "exact_match")
    return {
        "n": {"reports": len(true)},
        "overall": {
            name: with_interval(point[name], without[name], kind_of(name)) for name in names
        },
        "halves": {
            name: float(clinical_scores(half.sum(axis=0, keepdims=True))["f1_macro"][0])
            for name, half in halves.items()
        },
        "findings": {
            finding: {
                **{name: int(values[i]) for name, values in counts.items()},
                **{
                    name: with_interval(
                        *(values[:, i], without_by_finding[name][:, i], RATE),
                        int(rests_on[name][:, i].sum()),
                    )
                    for name, values in by_finding.items()
                },
            }
            for i, finding in enumerate(FINDINGS)
        },
    }


def page(found: dict[str, Any]) -> dict[str, Any]:
    overall, speed, findings = found["overall"], found["speed"], found["findings"]
    lowest = min(findings, key=lambda finding: findings[finding]["f1"]["value"])
    without = f"{speed['reports_per_second_without_memory']:.0f}"
    measures = (
        ("macro-F1", interval(overall["f1_macro"]), "0.98 on unseen reports"),
        (f"lowest F1, {lowest}", interval(findings[lowest]["f1"]), "0.92 on unseen reports"),
        ("micro-F1", interval(overall["f1"]), ""),
        ("label accuracy", interval(overall["label_accuracy"]), ""),
        ("all 18 right", interval(overall["exact_match"]), ""),
        ("reports a second, one core", f"{speed['reports_per_second']:.0f}", "500"),
        ("the same, nothing remembered between reports", without, ""),
    )
    rows = [
        (
            *(finding, interval(row["f1"])),
            *(f"{row[name]['value']:.3f}" for name in ("coverage", "precision")),
            *(row[name] for name in ("true_positives", "false_positives", "false_negatives")),
        )
        for finding, row in findings.items()
    ]
    columns = ("finding", "F1", "recall", "precision", "hits", "false alarms", "misses")
    return {
        **found,
        "packages": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "measures": table(("measure", "value", "asked for"), measures),
        "by_finding": table(columns, rows),
    }


if __name__ == "__main__":
    report("labeler", measure, page)
