"""One system's scores taken apart: by finding, by side and size, by group of scans."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctscribe.evaluate.agreement import AGREEMENT, agreement_scores, agreement_statistics
from ctscribe.evaluate.clinical import clinical_scores, finding_counts, finding_scores
from ctscribe.evaluate.intervals import Resampler, with_interval
from ctscribe.evaluate.scans import Answers, Report, labelled_text
from ctscribe.evaluate.statistics import Statistics, clinical_part
from ctscribe.evaluate.strata import NODULE, strata_of
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import ReportedRow


def by_finding(statistics: Statistics, resampler: Resampler) -> list[dict[str, Any]]:
    """Per finding: the four counts, and Coverage, precision and F1 with intervals."""
    total, draws = resampler.sums(clinical_part(statistics))
    point, drawn, counts = finding_scores(total), finding_scores(draws), finding_counts(total)
    return [
        {"finding": finding}
        | {name: int(values[i]) for name, values in counts.items()}
        | {name: with_interval(point[name][:, i], drawn[name][:, i]) for name in point}
        for i, finding in enumerate(FINDINGS)
    ]


def by_agreement(
    answers: Answers, truth: Sequence[Report], resampler: Resampler
) -> dict[str, dict[str, Any]]:
    """The measures of `AGREEMENT` with intervals; sides and sizes are read by the rules."""
    statistics = agreement_statistics(
        predictions=answers.labelled_texts,
        references=[labelled_text(*report.sections) for report in truth],
    )
    point, drawn = (agreement_scores(sums) for sums in resampler.sums(statistics))
    return {
        name: with_interval(point[name], drawn[name]) | {"signature": f"{name}|{definition}"}
        for name, definition in AGREEMENT.items()
    }


def by_stratum(
    statistics: Statistics,
    studies: Sequence[ReportedRow],
    truth: Sequence[Report],
    resampler: Resampler,
) -> list[dict[str, Any]]:
    """Coverage, precision, F1 and nodule Coverage of every group of scans, with intervals."""
    nodule = FINDINGS.index(NODULE)
    has_nodule = [bool(report.labels[nodule]) for report in truth]
    texts = [labelled_text(*report.sections) for report in truth]
    groups = strata_of(studies, texts, has_nodule)
    rows = []
    for grouping, strata in groups.items():
        for stratum, indices in strata.items():
            # Scans outside the stratum weigh nothing; the draws stay those of all patients.
            inside = np.zeros_like(clinical_part(statistics))
            inside[indices] = clinical_part(statistics)[indices]
            sums = resampler.sums(inside)
            row: dict[str, Any] = {
                "grouping": grouping,
                "stratum": stratum,
                "scans": len(indices),
                "patients": len(set(resampler.patients[indices].tolist())),
            }
            point, drawn = (clinical_scores(each) for each in sums)
            for name in ("coverage", "precision", "f1"):
                row[name] = with_interval(point[name], drawn[name])
            recall, recalls = (finding_scores(each)["coverage"] for each in sums)
            row["nodule_coverage"] = with_interval(recall[:, nodule], recalls[:, nodule])
            rows.append(row)
    return rows
