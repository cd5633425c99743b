"""docs/results/slice_aware.md from the raw files beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import study_nodules
from nodules_page import nodules
from slices_reports import DRAWS, compared, reports

from ctscribe.base.files import read_json, write_text

_TARGETS = """
## What was to be reached

| target | found |
|---|---|
"""


def write_page(raw: Path, wanted: Sequence[tuple[str, int]]) -> Path:
    """Writes the page from whatever cells of both studies are there, and says which are not."""
    names = [f"{arm}-seed{seed}" for arm, seed in wanted]
    found = {n: read_json(raw / f"{n}.json") for n in names if (raw / f"{n}.json").exists()}
    missing = [name for name in names if name not in found]
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for cell in found.values():
        by_arm.setdefault(cell["arm"], []).append(cell)
    run = read_json(raw / "run.json")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    section, reached = nodules(raw / "nodules", study_nodules.cells())
    parts = [
        _head(run, versions, missing),
        reports(by_arm, run["recipe"]),
        *([_queries(by_arm["module"])] if "module" in by_arm else []),
        _shares(by_arm),
        section,
        _targets(by_arm, reached),
    ]
    path = raw.with_suffix(".md")
    write_text(path, "\n".join(parts).rstrip() + "\n")
    return path


def _head(run: dict[str, Any], versions: str, missing: Sequence[str]) -> str:
    absent = ", ".join(missing) or "none"
    drawn, slices = run["recipe"]["phantom"], run["recipe"]["slices"]
    height_px, width_px = slices["frame_size_px"]
    return f"""# Slice-aware: what finding queries change

Made by `make study-slices` from the raw files in `slice_aware/`; synthetic phantoms with small
lesions drawn at {drawn["lesion_scale"]:g} times their size,
{drawn["num_train_patients"]} training and {drawn["num_valid_patients"]} test patients drawn for
this study alone (seed {drawn["seed"]}), {slices["num_slices"]} slices of
{height_px} × {width_px} px, the tiny model. Nothing here is about patients. Intervals are 95 %,
{DRAWS} draws of patients; where several seeds were trained, they are pooled within each draw.
Versions: {versions}; ctscribe {run["ctscribe"]}.

Cells not run yet: {absent}. Small nodules, more slices and the second look have data of their own,
described there.
"""


def _queries(runs: Sequence[dict[str, Any]]) -> str:
    parts = [_labels(runs), _evidence(runs), _confidence(runs)]
    return "\n".join(line for part in parts for line in part)


def _labels(runs: Sequence[dict[str, Any]]) -> list[str]:
    seeds = ", ".join(str(cell["seed"]) for cell in runs)
    lines = ["## Labels by the finding queries", "", f"AUROC on the test split, seeds {seeds}.", ""]
    lines += ["| finding | AUROC, mean of seeds | lowest – highest |", "|---|---|---|"]
    for finding in runs[0]["auroc"]:
        values = [cell["auroc"][finding] for cell in runs if cell["auroc"][finding] is not None]
        if values:
            spread = f"{min(values):.3f} – {max(values):.3f}"
            lines.append(f"| {finding} | {np.mean(values):.3f} | {spread} |")
    return [*lines, f"| **mean** | **{_mean_auroc(runs):.3f}** | |", ""]


def _evidence(runs: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "## Evidence against the truth",
        "",
        "Sentences that state one finding which is there and shown, first 100 test reports.",
        "",
    ]
    for group, title in (("all", "All"), ("focal", "On at most half of the slices")):
        lines += [*_hits(runs, group, title), *_curves(runs, group)]
    return [
        *lines,
        "Curves: mean log-probability of the sentence over the steps, in nats. Evidence that holds",
        "is lower under deletion and higher under insertion.",
        "",
    ]


def _hits(runs: Sequence[dict[str, Any]], group: str, title: str) -> list[str]:
    lines = [f"{title}:", "", "| seed | sentences | ranked by | hit@1 | hit@3 |"]
    lines.append("|---|---|---|---|---|")
    for cell in runs:
        part = cell["faithfulness"][group]
        for name in part["hit@1"]:
            hits = " | ".join(with_bounds(part[f"hit@{k}"][name]) for k in (1, 3))
            lines.append(f"| {cell['seed']} | {part['sentences']} | {name} | {hits} |")
    return [*lines, ""]


def _curves(runs: Sequence[dict[str, Any]], group: str) -> list[str]:
    methods = ("attention", "leave_one_out", "plain_attention", "random")
    header = ("seed", "box overlap (IoU)", "of a random place", "curve", *methods)
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for cell in runs:
        part = cell["faithfulness"][group]
        boxes = " | ".join(with_bounds(part["overlap"][name]) for name in ("attention", "random"))
        for kind in ("deletion", "insertion"):
            curves = " | ".join(f"{np.mean(part[kind][name]):.2f}" for name in methods)
            lines.append(f"| {cell['seed']} | {boxes} | {kind} | {curves} |")
    return [*lines, ""]


def _confidence(runs: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["## Confidence", "", "| seed | of | cases | ECE | Brier | risk, all → surest half |"]
    lines.append("|---|---|---|---|---|---|")
    for cell in runs:
        for key in ("findings_raw", "findings", "sentences"):
            lines.append(_confidence_row(cell["seed"], key, cell["confidence"][key]))
    lines += ["", "## Abstention", "", "| seed | shown | refused | rate |", "|---|---|---|---|"]
    for cell in runs:
        for kind, rate in cell["abstention"].items():
            counted = f"{rate['refused']} of {rate['of']}"
            lines.append(f"| {cell['seed']} | {kind} | {counted} | {with_bounds(rate)} |")
    return [*lines, ""]


def _confidence_row(seed: int, key: str, part: dict[str, Any] | None) -> str:
    if part is None:
        return f"| {seed} | {key} | 0 | – | – | – |"
    curve = part["risk_coverage"]
    half = min(curve, key=lambda point: abs(point[0] - 0.5))[1]
    ece = f"{part['ece']['value']:.3f} [{part['ece']['low']:.3f}, {part['ece']['high']:.3f}]"
    risk = f"{curve[-1][1]:.3f} → {half:.3f}"
    return f"| {seed} | {key} | {part['cases']} | {ece} | {part['brier']:.3f} | {risk} |"


def _shares(by_arm: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "## Warm-up where only a part of the studies has boxes",
        "",
        "Random weights, ten passes over prepared studies, tested on held-out patients.",
        "",
        "| share with boxes | seeds | studies | mean AUROC (lowest – highest seed) |",
        "|---|---|---|---|",
    ]
    for arm in sorted((a for a in by_arm if a.startswith("share")), key=lambda a: float(a[5:])):
        values = [cell["mean_auroc"] for cell in by_arm[arm]]
        share, studies = 100 * by_arm[arm][0]["share"], by_arm[arm][0]["num_train"]
        spread = f"{np.mean(values):.3f} ({min(values):.3f} – {max(values):.3f})"
        lines.append(f"| {share:g} % | {len(values)} | {studies} | {spread} |")
    return "\n".join([*lines, ""])


def _mean_auroc(runs: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([[v for v in cell["auroc"].values() if v is not None] for cell in runs]))


def _targets(by_arm: dict[str, list[dict[str, Any]]], nodules_reached: str) -> str:
    runs = by_arm.get("module", [])
    rows = []
    if runs:
        hits = [cell["faithfulness"]["all"]["hit@3"] for cell in runs]
        hit, chance = (
            np.mean([h[name]["value"] for h in hits]) for name in ("attention", "chance")
        )
        parts = [cell["confidence"][key] for cell in runs for key in ("findings", "sentences")]
        eces = [part["ece"]["value"] for part in parts if part is not None]
        rows += [
            f"| mean AUROC 0.90 | {_mean_auroc(runs):.3f} |",
            f"| hit@3 0.80 on findings the model states | {hit:.3f}, by chance {chance:.3f} |",
            f"| ECE 0.05 | highest of findings and sentences {max(eces):.3f} |",
        ]
    if runs and "scratch" in by_arm:
        found = f"{compared(runs, by_arm['scratch'])}; see how much its reports hang on the scan"
        rows.append(f"| Coverage 1.3 times that of scratch at equal time | {found} |")
    else:
        rows.append("| Coverage 1.3 times that of scratch at equal time | not measured yet |")
    doubled = "nodules under 6 mm: Coverage twice that of ten plain slices by the second look"
    rows.append(f"| {doubled} | {nodules_reached} |")
    return _TARGETS.lstrip("\n") + "\n".join(rows) + "\n"


def with_bounds(score: Mapping[str, float | None]) -> str:
    """A score with its interval, or a dash where there is none."""
    if score["value"] is None:
        return "–"
    if score["low"] is None:
        return f"{score['value']:.2f}"
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
