"""The page's section on small nodules, and its figure, from the raw files of their study."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.figure import Figure

from ctscribe.base.figures import MARKERS, Estimate, line, style, write_figure
from ctscribe.base.files import read_json
from ctscribe.learn.model.teach import auroc
from ctscribe.measure.intervals import draw_patients, patient_index, percentile_interval

DRAWS, SEED = 2000, 0
SPECIFICITY = 0.9
FALSE_ALARMS = (1, 4)
"""Per scan, as nodule detectors are compared."""
STRATA = {"< 6 mm": (0.5, 6.0), "6–8 mm": (6.0, 8.5), "> 8 mm": (8.5, 99.0)}
"""Of the largest nodule, in whole millimetres before small lesions are enlarged."""
_HEADER = """
## Small nodules: more slices and a second look

Phantoms of {spacing} mm voxels with nodules of {nodule_mm:g} mm in the median, drawn, as all small
lesions here, at {scale:g} times their size, which is not the size they are grouped by;
{train} training and {test} test patients for this alone (seed {seed}). Whole slices are shown at
2.8 mm a pixel, crops at 1.4 mm; n + m are n whole slices and crops of m slices, chosen by the arm
of n slices. Each arm warms up the shipped start with boxes and sees {pairs} pairs of frames, so
all cost the same, but for the leading arm. Coverage: of the test scans whose largest nodule is of
that size, the share in which the queries state a nodule, where they stay silent on
{specificity:.0%} of those without nodules; chance is {chance:.2f}. Found: of all nodules under
6 mm, the share with an alarm within 15 mm, at a mean number of false alarms a scan; findable is
the share for alarms without fault, which miss what lies between the slices. AUROC of nodules under
6 mm is against scans without nodules. Seeds are pooled within each draw.

| {columns} |
|{rule}
"""
_FIGURE = """
![Coverage of nodules over the number of slices and over their size](slice_aware/nodules.png)
"""


def nodules(raw: Path, wanted: Sequence[tuple[str, int]]) -> tuple[str, str]:
    """The section, whose figure is written beside ``raw``, and the row on what was to be reached.

    Args:
        raw: The study's folder; what is not there yet is named.
        wanted: Arms and seeds of the whole study.
    """
    arms: dict[str, list[dict[str, Any]]] = {}
    missing = []
    if not (raw / "run.json").exists():
        return "", "not measured"
    run = read_json(raw / "run.json")
    for arm, seed in wanted:
        path = raw / f"{arm}-seed{seed}.json"
        if not path.exists():
            missing.append(path.stem)
            continue
        arms.setdefault(arm, []).append(_read(path, run["recipe"]["phantom"]["lesion_scale"]))
    if not arms:
        return "", "not measured"
    small = {arm: _drawn_coverage(cells, "< 6 mm") for arm, cells in arms.items()}
    write_figure(raw.with_suffix(".png"), _figure(arms, small))
    absent = f"\nCells not run yet: {', '.join(missing)}.\n" if missing else ""
    rows = "\n".join(_row(arm, cells) for arm, cells in arms.items())
    counted = f"\nTest scans by their largest nodule: {_counted(next(iter(arms.values()))[0])}.\n"
    head = _header(run).strip()
    reached = _reached(small)
    return f"{head}\n{rows}\n{counted}{absent}{_FIGURE}", reached


def _read(path: Path, lesion_scale: float) -> dict[str, Any]:
    """One cell and its scans, whose nodules have the size before they were enlarged."""
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    scans = [json.loads(each) for each in lines]
    for scan in scans:
        scan["nodules_mm"] = [mm / lesion_scale for mm in scan["nodules_mm"]]
    return {**read_json(path), "scans": scans}


def _header(run: dict[str, Any]) -> str:
    drawn = run["recipe"]["phantom"]
    columns = (
        *("slices", "seeds", "passes"),
        *(f"Coverage, {name}" for name in STRATA),
        *(f"found at {each}" for each in FALSE_ALARMS),
        "findable",
        *("AUROC, < 6 mm", "mean AUROC, 18 findings"),
    )
    return _HEADER.format(
        spacing=" × ".join(f"{mm:g}" for mm in drawn["spacing_mm"]),
        nodule_mm=drawn["nodule_mm"],
        scale=drawn["lesion_scale"],
        train=drawn["num_train_patients"],
        test=drawn["num_valid_patients"],
        seed=drawn["seed"],
        pairs=f"{run['pairs_seen']:,}",
        specificity=SPECIFICITY,
        chance=1 - SPECIFICITY,
        columns=" | ".join(columns),
        rule="---|" * len(columns),
    )


def _row(arm: str, cells: Sequence[dict[str, Any]]) -> str:
    coverage = (_text(_estimate(_drawn_coverage(cells, name))) for name in STRATA)
    found = (_text(_estimate(_drawn_found(cells, alarms))) for alarms in FALSE_ALARMS)
    most = np.mean([_findable(cell) for cell in cells])
    small = np.mean([_small_auroc(cell) for cell in cells])
    mean = np.mean([[v for v in cell["auroc"].values() if v is not None] for cell in cells])
    epochs = cells[0]["epochs"]
    figures = (*coverage, *found, f"{most:.2f}", f"{small:.3f}", f"{mean:.3f}")
    return f"| {arm.replace('+', ' + ')} | {len(cells)} | {epochs} | {' | '.join(figures)} |"


def _test(cell: dict[str, Any]) -> list[dict[str, Any]]:
    return [scan for scan in cell["scans"] if scan["split"] == "test"]


def _inside(scans: Sequence[dict[str, Any]], stratum: str) -> Bool[np.ndarray, "scans"]:
    low, high = STRATA[stratum]
    largest = np.array([max(scan["nodules_mm"], default=0) for scan in scans])
    return np.asarray((low <= largest) & (largest < high))


def _drawn_coverage(cells: Sequence[dict[str, Any]], stratum: str) -> Float64[np.ndarray, "draws"]:
    """Coverage among scans of a stratum; first of all patients, then of every draw.

    Each draw has its own point of 90 % specificity, so the interval holds that choice too.
    """
    above, below = 0.0, 0.0
    for cell in cells:
        scans = _test(cell)
        odds = np.array([scan["log_odds"] for scan in scans])
        healthy = np.array([not scan["nodules_mm"] for scan in scans])
        weights = _draws(scans)
        order = np.argsort(odds[healthy])
        mass = weights[:, healthy][:, order].cumsum(1)
        last = (mass < SPECIFICITY * mass[:, -1:]).sum(1)
        stated = odds > odds[healthy][order][last][:, None]
        inside = weights * _inside(scans, stratum)
        above, below = above + (inside * stated).sum(1), below + inside.sum(1)
    return np.asarray(above / below)


def _small_auroc(cell: dict[str, Any]) -> float:
    """Of scans whose largest nodule is under 6 mm against scans without."""
    scans = _test(cell)
    odds = np.array([scan["log_odds"] for scan in scans], np.float32)
    healthy = np.array([not scan["nodules_mm"] for scan in scans])
    small = _inside(scans, "< 6 mm")
    value = auroc(odds[small | healthy], small[small | healthy])
    assert value is not None  # both kinds are drawn by the dozen
    return value


def _drawn_found(cells: Sequence[dict[str, Any]], alarms: int) -> Float64[np.ndarray, "draws"]:
    """Share of nodules under 6 mm that an alarm hits, at so many false alarms a scan."""
    above, below = 0.0, 0.0
    for cell in cells:
        scans = _test(cell)
        false = sorted(
            (score for scan in scans for score, hit in scan["alarms"] if hit < 0), reverse=True
        )
        threshold = false[min(alarms * len(scans), len(false) - 1)]
        small = [
            {i for i, mm in enumerate(scan["nodules_mm"]) if mm < STRATA["< 6 mm"][1]}
            for scan in scans
        ]
        hit = [{nodule for score, nodule in s["alarms"] if score > threshold} for s in scans]
        found = np.array([len(a & b) for a, b in zip(small, hit, strict=True)])
        weights = _draws(scans)
        above += weights @ found
        below += weights @ np.array([len(each) for each in small])
    return np.asarray(above / below)


def _findable(cell: dict[str, Any]) -> float:
    """Share of nodules under 6 mm that alarms without fault would hit."""
    seen = [
        findable
        for scan in _test(cell)
        for mm, findable in zip(scan["nodules_mm"], scan["findable"], strict=True)
        if mm < STRATA["< 6 mm"][1]
    ]
    return float(np.mean(seen))


def _draws(scans: Sequence[dict[str, Any]]) -> Float64[np.ndarray, "draws scans"]:
    """How often each scan counts: once, then as often as each draw has its patient."""
    patients = patient_index([scan["patient"] for scan in scans])
    count = int(patients.max()) + 1
    draws = np.vstack([np.ones(count), draw_patients(count, DRAWS, SEED)])
    return np.asarray(draws[:, patients])


def _estimate(drawn: Float64[np.ndarray, "draws"]) -> Estimate:
    interval = percentile_interval(drawn[1:])
    assert interval is not None  # hundreds of patients, never all of another stratum
    return float(drawn[0]), *interval


def _text(estimate: Estimate) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)


def _counted(cell: dict[str, Any]) -> str:
    scans = _test(cell)
    counts = [f"{name} {_inside(scans, name).sum()}" for name in STRATA]
    return ", ".join([f"none {sum(not scan['nodules_mm'] for scan in scans)}", *counts])


def _reached(small: dict[str, Float64[np.ndarray, "draws"]]) -> str:
    """Ratios of every second look to ten plain slices, the same patients drawn for both."""
    if "10" not in small:
        return "not measured"
    ratios = [
        f"{arm.replace('+', ' + ')} slices {_text(_estimate(drawn / small['10']))} times"
        for arm, drawn in small.items()
        if "+" in arm
    ]
    return "; ".join(ratios) or "not measured"


def _figure(
    arms: dict[str, list[dict[str, Any]]], small: dict[str, Float64[np.ndarray, "draws"]]
) -> Figure:
    """Coverage of nodules under 6 mm over the number of slices, and of all over their size."""
    kinds = {
        "whole slices": [arm for arm in arms if "+" not in arm],
        "and a second look": [arm for arm in arms if "+" in arm],
    }
    with style():
        figure = Figure(figsize=(8.2, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for (kind, members), look in zip(kinds.items(), MARKERS, strict=False):
            if members:
                slices = [float(arms[arm][0]["slices"]) for arm in members]
                line(left, slices, [_estimate(small[arm]) for arm in members], look, kind)
        left.axhline(1 - SPECIFICITY, color="black", linewidth=0.8, linestyle=":", label="chance")
        left.set_xlabel("Whole slices")
        left.set_ylabel("Coverage, with 95 % interval")
        left.set_title("Nodules under 6 mm", fontsize=9)
        left.legend(frameon=False)
        shown = [arm for arm in ("10", "40", "40+40", "80+80") if arm in arms]
        for number, (arm, look) in enumerate(zip(shown, MARKERS, strict=False)):
            at = [place + 0.1 * (number - 1.5) for place in range(len(STRATA))]
            estimates = [_estimate(_drawn_coverage(arms[arm], name)) for name in STRATA]
            line(right, at, estimates, look, arm.replace("+", " + "))
        right.set_xticks(range(len(STRATA)), list(STRATA))
        right.set_xlabel("Largest nodule")
        right.set_title("By size", fontsize=9)
        right.set_ylim(0, 1.02)
        right.legend(frameon=False, title="slices")
    return figure
