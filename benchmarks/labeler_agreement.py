"""How the rule labeler agrees with people, and how fast it reads.

Usage: python benchmarks/labeler_agreement.py LABELLED_REPORTS.csv

The file has AccessionNo, report_text and the 18 findings. Writes docs/results/labeler.json, which
holds numbers only, and docs/results/labeler.md, which is made of it.
"""

import csv
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe import __version__
from ctscribe.base.files import write_json, write_text
from ctscribe.base.types import Labels
from ctscribe.measure.clinical import (
    clinical_scores,
    clinical_statistics,
    finding_counts,
    finding_scores,
)
from ctscribe.measure.intervals import draw_patients, with_interval
from ctscribe.text import labeler, sections
from ctscribe.text.findings import FINDINGS

OUT = Path(__file__).parents[1] / "docs" / "results" / "labeler.json"
COMMAND = "make labeler REPORTS=LABELLED_REPORTS.csv"
RESAMPLES, SEED = 2000, 0
TARGETS = {"f1_macro": 0.96, "f1_lowest": 0.88, "reports_per_second": 500}


def main(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["report_text"] for row in rows]
    true = [tuple(int(row[finding]) for finding in FINDINGS) for row in rows]
    remembering = timed(texts, lambda: None)
    found = {
        **agreement(labels_of(texts), true),
        "speed": {
            "reports_per_second": remembering,
            "reports_per_second_without_memory": timed(texts, forget),
            "words_per_report": float(np.mean([len(text.split()) for text in texts])),
        },
        "versions": {
            "ctscribe": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    write_json(OUT, found)
    write_text(OUT.with_suffix(".md"), page(found))
    print(f"Written to {OUT.with_suffix('.md')}")


def labels_of(texts: list[str]) -> list[Labels]:
    return [labeler.label_report(text) for text in texts]


def forget() -> None:
    labeler._read_sentence.cache_clear()
    sections.sentence_spans.cache_clear()


def timed(texts: list[str], before_each: Callable[[], None]) -> float:
    """Reports per second of CPU time, median of three passes that start with an empty memory."""
    rates = []
    for _ in range(3):
        forget()
        seconds = 0.0
        for text in texts:
            before_each()
            began = time.process_time()
            labeler.label_report(text)
            seconds += time.process_time() - began
        rates.append(len(texts) / seconds)
    return float(np.median(rates))


def agreement(stated: list[Labels], true: list[Labels]) -> dict[str, Any]:
    statistics = clinical_statistics(predictions=stated, references=true)
    draws = draw_patients(len(true), RESAMPLES, SEED)
    total, drawn = statistics.sum(axis=0, keepdims=True), draws @ statistics
    point, spread = clinical_scores(total), clinical_scores(drawn)
    by_finding, spread_by_finding = finding_scores(total), finding_scores(drawn)
    counts = finding_counts(total)
    halves = {"even": statistics[1::2], "odd": statistics[0::2]}
    names = ("f1_macro", "f1", "label_accuracy", "exact_match")
    return {
        "n": {"reports": len(true), "resamples": RESAMPLES, "seed": SEED},
        "overall": {name: with_interval(point[name], spread[name]) for name in names},
        "halves": {
            name: float(clinical_scores(half.sum(axis=0, keepdims=True))["f1_macro"][0])
            for name, half in halves.items()
        },
        "findings": {
            finding: {
                **{name: int(values[i]) for name, values in counts.items()},
                **{
                    name: with_interval(values[:, i], spread_by_finding[name][:, i])
                    for name, values in by_finding.items()
                },
            }
            for i, finding in enumerate(FINDINGS)
        },
    }


def page(found: dict[str, Any]) -> str:
    overall, speed, findings = found["overall"], found["speed"], found["findings"]
    lowest = min(findings, key=lambda finding: findings[finding]["f1"]["value"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# The rule labeler against people",
        "",
        f"{found['n']['reports']} real CT-RATE reports whose 18 findings were labelled by people. "
        "The rules were developed on them, so these are not the numbers of unseen reports. Some "
        "human labels contradict their report, which bounds the agreement.",
        "",
        f"Made by `{COMMAND}` from the raw numbers in `labeler.json` ({versions}). In brackets: "
        f"95 % interval, {RESAMPLES} draws of reports, seed {SEED}.",
        "",
        "| measure | value | asked for |",
        "|---|---|---|",
        f"| macro-F1 | {shown(overall['f1_macro'])} | {TARGETS['f1_macro']} on unseen reports |",
        f"| lowest F1, {lowest} | {shown(findings[lowest]['f1'])} | {TARGETS['f1_lowest']} on "
        "unseen reports |",
        f"| micro-F1 | {shown(overall['f1'])} | |",
        f"| label accuracy | {shown(overall['label_accuracy'])} | |",
        f"| all 18 right | {shown(overall['exact_match'])} | |",
        f"| reports a second, one core | {speed['reports_per_second']:.0f} | "
        f"{TARGETS['reports_per_second']} |",
        "| the same, nothing remembered between reports | "
        f"{speed['reports_per_second_without_memory']:.0f} | |",
        "",
        f"Reports have {speed['words_per_report']:.0f} words on average; stock sentences recur, "
        "and what they state is remembered.",
        "",
        f"Macro-F1 is {found['halves']['even']:.3f} on the reports with even numbers and "
        f"{found['halves']['odd']:.3f} on those with odd numbers.",
        "",
        "| finding | F1 | recall | precision | hits | false alarms | misses |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {finding} | {shown(row['f1'])} | {row['coverage']['value']:.3f} | "
            f"{row['precision']['value']:.3f} | {row['true_positives']} | "
            f"{row['false_positives']} | {row['false_negatives']} |"
            for finding, row in findings.items()
        ),
        "",
    ]
    return "\n".join(lines)


def shown(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f}–{score['high']:.3f})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
