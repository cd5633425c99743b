"""One system's scores taken apart: by finding, by side and size, by group of scans.

In: sufficient statistics or texts, per scan. Out: rows of scores with intervals.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.base.rows import ReportedRow
from ctscribe.measure.clinical import clinical_scores, finding_counts, finding_scores
from ctscribe.measure.intervals import NUMBER, RATE, Jackknife, with_interval
from ctscribe.measure.scans import Answers, ScanReport, labelled_text
from ctscribe.measure.statistics import Statistics, clinical_part
from ctscribe.text.findings import FINDINGS
from ctscribe.text.sizes import NODULE, largest_nodule_mm, stated_extents

AGREEMENT = {
    "side_agreement": "of findings both state with a side, the share on the same side or sides",
    "nodule_size_within_2_mm": "of nodules both measure, the share of largest within 2 mm",
    "nodule_size_error_mm": "of nodules both measure, mean absolute difference of the largest",
}
"""Measure → definition."""

TOLERANCE_MM = 2.0

ORDER = {
    "nodule size": ("none", "< 6 mm", "6–8 mm", "> 8–30 mm", "> 30 mm", "unmeasured"),
    "tiny nodule": ("< 3 mm",),
    "surgery": ("none stated", "post-operative"),
    "artefact": ("none stated", "metal artefact"),
    "age": ("< 40", "40–59", "60–74", "≥ 75"),
}
"""Strata in the order of tables; those of other groupings are alphabetical."""

_POST_OPERATIVE = re.compile(
    r"\b(?:post-?\s?op|operated|operation|(?:lob|segment|pneumon|thym|mast)ectomy|sternotomy"
    r"|resection|by-?pass)",
    re.IGNORECASE,
)

_METAL = r"\b(?:metal|pace-?maker|prosthe|implant|electrode|screw|valve|clip)\w*"
_ARTEFACT = r"\bart[ei]fact\w*"

_METAL_ARTEFACT = re.compile(
    rf"{_METAL}[^.;]{{0,60}}{_ARTEFACT}|{_ARTEFACT}[^.;]{{0,60}}{_METAL}", re.IGNORECASE
)


def by_finding(statistics: Statistics, jackknife: Jackknife) -> list[dict[str, Any]]:
    """Per finding: the four counts, and Coverage, precision and F1 with intervals."""
    rows = clinical_part(statistics)
    total, others = jackknife.sums(rows)
    point, without, counts = finding_scores(total), finding_scores(others), finding_counts(total)
    # A score of one scan is defined where the scan counts.
    counted = {name: np.isfinite(of_scan) for name, of_scan in finding_scores(rows).items()}
    return [
        {"finding": finding}
        | {name: int(values[i]) for name, values in counts.items()}
        | {
            name: with_interval(
                *(point[name][:, i], without[name][:, i], RATE),
                jackknife.count_where(counted[name][:, i]),
            )
            for name in point
        }
        for i, finding in enumerate(FINDINGS)
    ]


def by_agreement(
    answers: Answers, truth: Sequence[ScanReport], jackknife: Jackknife
) -> dict[str, dict[str, Any]]:
    """The measures of `AGREEMENT` with intervals; sides and sizes are read by the rules."""
    statistics = agreement_statistics(
        predictions=answers.labelled_texts,
        references=[labelled_text(*report.sections) for report in truth],
    )
    point, without = (agreement_scores(sums) for sums in jackknife.sums(statistics))
    counted = agreement_scores(statistics)
    return {
        name: with_interval(
            *(point[name], without[name], NUMBER if name.endswith("_mm") else RATE),
            jackknife.count_where(np.isfinite(counted[name])),
        )
        | {"signature": f"{name}|{definition}"}
        for name, definition in AGREEMENT.items()
    }


def agreement_statistics(
    *, predictions: Sequence[str], references: Sequence[str]
) -> Float64[np.ndarray, "scans 5"]:
    """Sufficient statistics per scan of what is agreed on where both state the same.

    Returns:
        Per scan: findings on the same side, findings with a side in both, nodules within the
        tolerance, absolute difference in mm, nodules measured in both.
    """
    rows = []
    for written, truth in zip(predictions, references, strict=True):
        stated, true = stated_extents(written), stated_extents(truth)
        sides = [
            (stated[finding].sides, true[finding].sides)
            for finding in stated.keys() & true.keys()
            if stated[finding].sides and true[finding].sides
        ]
        same = sum(ours == theirs for ours, theirs in sides)
        row = [float(same), float(len(sides)), 0.0, 0.0, 0.0]
        if NODULE in stated and NODULE in true:
            first, second = stated[NODULE].size_mm, true[NODULE].size_mm
            if first is not None and second is not None:
                error_mm = abs(first - second)
                row[2:] = [float(error_mm <= TOLERANCE_MM), error_mm, 1.0]
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def agreement_scores(
    totals: Float64[np.ndarray, "rows 5"],
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The measures of `AGREEMENT` from sums over scans; NaN where nothing can be compared."""
    same, sided, close, error_mm, measured = totals.T
    pairs = ((same, sided), (close, measured), (error_mm, measured))
    return {
        name: np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
        for name, (part, whole) in zip(AGREEMENT, pairs, strict=True)
    }


def by_stratum(
    statistics: Statistics,
    studies: Sequence[ReportedRow],
    truth: Sequence[ScanReport],
) -> list[dict[str, Any]]:
    """Coverage, precision, F1 and nodule Coverage of every group of scans, with intervals."""
    nodule = FINDINGS.index(NODULE)
    has_nodule = [bool(report.labels[nodule]) for report in truth]
    texts = [labelled_text(*report.sections) for report in truth]
    groups = strata_of(studies, texts, has_nodule)
    rows = []
    for grouping, strata in groups.items():
        for stratum, indices in strata.items():
            inside = clinical_part(statistics)[indices]
            within = Jackknife.of([truth[index].patient_id for index in indices])
            sums = within.sums(inside)
            row: dict[str, Any] = {
                "grouping": grouping,
                "stratum": stratum,
                "scans": len(indices),
                "patients": within.count_where(np.ones(len(indices), bool)),
            }
            point, without = (clinical_scores(each) for each in sums)
            for name in ("coverage", "precision", "f1"):
                row[name] = with_interval(point[name], without[name], RATE)
            recall, recalls = (finding_scores(each)["coverage"] for each in sums)
            with_nodule = within.count_where(np.array(has_nodule)[indices])
            row["nodule_coverage"] = with_interval(
                recall[:, nodule], recalls[:, nodule], RATE, with_nodule
            )
            rows.append(row)
    return rows


def strata_of(
    studies: Sequence[ReportedRow], texts: Sequence[str], has_nodule: Sequence[bool]
) -> dict[str, dict[str, list[int]]]:
    """Groups scans by what their reference and metadata say, one of each per scan.

    Returns:
        Grouping → stratum → indices into ``studies``, as in `ORDER`; a scan without the datum is
        left out.
    """
    groups: dict[str, dict[str, list[int]]] = {}

    def add(grouping: str, stratum: str | None, index: int) -> None:
        if stratum is not None:
            groups.setdefault(grouping, {}).setdefault(stratum, []).append(index)

    for index, (study, text, nodule) in enumerate(zip(studies, texts, has_nodule, strict=True)):
        size_mm = largest_nodule_mm(text) if nodule else None
        add("nodule size", nodule_stratum(nodule, size_mm), index)
        add("tiny nodule", "< 3 mm" if size_mm is not None and size_mm < 3 else None, index)
        add("surgery", "post-operative" if _POST_OPERATIVE.search(text) else "none stated", index)
        artefact = "metal artefact" if _METAL_ARTEFACT.search(text) else "none stated"
        add("artefact", artefact, index)
        add("scanner", study.manufacturer, index)
        add("sex", study.sex, index)
        add("age", _age_band(study.age_years), index)
    return {
        grouping: {name: strata[name] for name in sorted(strata, key=partial(_place, grouping))}
        for grouping, strata in groups.items()
    }


def nodule_stratum(has_nodule: bool, size_mm: float | None) -> str:
    """Which size group a reference belongs to, by its largest current lung nodule in mm.

    The limits are Fleischner's for solid nodules (MacMahon et al. 2017) and 30 mm, beyond which
    one speaks of a mass.
    """
    if not has_nodule:
        return "none"
    if size_mm is None:
        return "unmeasured"
    if size_mm < 6:
        return "< 6 mm"
    if size_mm <= 8:
        return "6–8 mm"
    return "> 8–30 mm" if size_mm <= 30 else "> 30 mm"


def _age_band(age_years: float | None) -> str | None:
    if age_years is None:
        return None
    if age_years < 40:
        return "< 40"
    if age_years < 60:
        return "40–59"
    return "60–74" if age_years < 75 else "≥ 75"


def _place(grouping: str, stratum: str) -> tuple[int, str]:
    order = ORDER.get(grouping, ())
    return (order.index(stratum) if stratum in order else len(order)), stratum
