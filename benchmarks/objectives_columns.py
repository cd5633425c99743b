"""What a cell of the study of objectives keeps: scores, and what the page resamples."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ctscribe.base.rows import PredictionRow, StudyRow, read_rows


def scores(predictions: list[PredictionRow], scans: list[StudyRow]) -> dict[str, float]:
    from ctscribe.measure.scans import as_reports, match_predictions, one_row_per_scan
    from ctscribe.measure.statistics import scan_statistics, score_sums

    truth = as_reports(one_row_per_scan(scans))
    wanted = {report.scan_id for report in truth}
    answers, _ = match_predictions([row for row in predictions if row.scan_id in wanted], truth)
    found = score_sums(scan_statistics(answers, truth, "ctrate-raw").sum(axis=0, keepdims=True))
    return {name: round(float(found[name][0]), 4) for name in ("coverage", "precision", "f1")}


def scan_columns(predictions: list[PredictionRow], scans: list[StudyRow]) -> dict[str, str]:
    """What the page resamples, one number per scan in alphabetical order, as compact text."""
    from ctscribe.measure.language import NUM_LANGUAGE_COLUMNS
    from ctscribe.measure.scans import as_reports, match_predictions, one_row_per_scan
    from ctscribe.measure.statistics import scan_statistics
    from ctscribe.text.findings import FINDINGS

    truth = as_reports(one_row_per_scan(scans))
    statistics = scan_statistics(match_predictions(predictions, truth)[0], truth, "ctrate-raw")
    clinical = statistics[:, NUM_LANGUAGE_COLUMNS:]
    counts = [clinical[:, len(FINDINGS) * k : len(FINDINGS) * (k + 1)].sum(1) for k in range(3)]
    columns = dict(zip(("hits", "false_alarms", "misses"), counts, strict=True))
    columns |= {f"matches_{n + 1}": statistics[:, n] for n in range(4)}
    columns |= {"words": statistics[:, 8], "true_words": statistics[:, 9]}
    patients = {report.scan_id: report.patient_id for report in truth}
    names = sorted(set(patients.values()))
    index = [names.index(patients[report.scan_id]) for report in truth]
    return {name: as_text(values) for name, values in {"patient": index, **columns}.items()}


def training_summary(run_dir: Path) -> dict[str, float | None]:
    """Means over the last tenth of the updates, and the last validation."""
    from ctscribe.learn.train.follow import MetricsRow

    rows = read_rows(run_dir / "metrics.jsonl", MetricsRow)
    last = rows[-max(1, len(rows) // 10) :]
    names = ("positive_ce", "negative_ce", "negative_finding_ce", "negative_boilerplate_ce")
    names += ("gap", "scope_gap", "share_capped", "share_skipped")
    names += ("positive_grad_norm", "negative_grad_norm")
    found: dict[str, float | None] = {"updates": len(rows)}
    for name in names:
        values = [value for row in last if (value := getattr(row, name)) is not None]
        found[name] = round(float(np.mean(values)), 4) if values else None
    skipped = [row.share_skipped for row in rows if row.share_skipped is not None]
    found["share_skipped_overall"] = round(float(np.mean(skipped)), 4) if skipped else None
    found["validation_ce"], found["validation_gap"] = (
        rows[-1].validation_ce,
        rows[-1].validation_gap,
    )
    return found


def as_text(values: Iterable[float]) -> str:
    return " ".join(str(round(float(value))) for value in values)
