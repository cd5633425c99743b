"""docs/results/slice_aware.md from the raw files beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.evaluate.intervals import draw_patients, patient_index, sum_by_patient
from ctscribe.evidence.show import with_bounds
from ctscribe.files import read_json, write_text

DRAWS, SEED = 2000, 0
_TARGETS = """
## What was to be reached

| target | found |
|---|---|
"""

_SCRATCH = """
The random start is no strong baseline: its training neither diverges nor stops, but hardly learns
to look. At its best checkpoint another patient's scan costs it less than 0.001 nats per token more
than the own. Two seeds write one text, without a finding, for all scans; seed 0 has 23 texts, each
with findings, and Coverage little above that of the same texts shuffled among the scans (0.265,
shuffled 0.213 [0.197, 0.229]; the warm start's seed 0: 0.408 and 0.178). Afterwards all learn the
training reports by heart. The tower's learning rate is the recipe's for the language model (3e-3,
AdamW), not sought for this arm (`docs/LOG.md`): a ratio to it says little about finding queries.
"""


def write_page(raw: Path, wanted: Sequence[tuple[str, int]]) -> Path:
    """Writes the page from whatever cells are there, and says which are not."""
    names = [f"{arm}-seed{seed}" for arm, seed in wanted]
    found = {n: read_json(raw / f"{n}.json") for n in names if (raw / f"{n}.json").exists()}
    missing = [name for name in names if name not in found]
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for cell in found.values():
        by_arm.setdefault(cell["arm"], []).append(cell)
    run = read_json(raw / "run.json")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    parts = [
        _head(run, versions, missing),
        _reports(by_arm),
        *([_queries(by_arm["module"])] if "module" in by_arm else []),
        _shares(by_arm),
        _targets(by_arm),
    ]
    path = raw.with_suffix(".md")
    write_text(path, "\n".join(parts).rstrip() + "\n")
    return path


def _head(run: dict[str, Any], versions: str, missing: Sequence[str]) -> str:
    absent = ", ".join(missing) or "none"
    return f"""# Slice-aware: what finding queries change

Made by `make study-slices` from the raw files in `slice_aware/`; synthetic phantoms with small
lesions drawn at twice their size, 600 training and 200 test patients drawn for this study alone
(seed 6), ten slices of 112 px, the tiny model. Nothing here is about patients. Intervals are
95 %, {DRAWS} draws of patients; where several seeds were trained, they are pooled within each draw.
Versions: {versions}; ctscribe {run["ctscribe"]}.

Cells not run yet: {absent}. Not in this study: Coverage against the number of slices, nodules
under 6 mm and the second look, which is not measured.
"""


def _reports(by_arm: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "## Reports",
        "",
        "| system | seeds | Coverage | Precision | scans that state a finding | CPU s per cell |",
        "|---|---|---|---|---|---|",
    ]
    titles = {
        "module": "warm start, finding queries, λ = 0.1",
        "plain": "warm start alone",
        "scratch": "random start, tower learning, equal total time",
    }
    for arm, title in titles.items():
        if arm in by_arm:
            cpu_s = np.mean([cell["cpu_s"] for cell in by_arm[arm]])
            lines.append(_report_row(title, [c["counts"] for c in by_arm[arm]], f"{cpu_s:.0f}"))
    if "module" in by_arm:
        counts = [cell["template_counts"] for cell in by_arm["module"]]
        lines.append(_report_row("labels → template (`--generator template`)", counts, "–"))
    lines += [
        "",
        "CPU seconds include writing and every measurement of the cell, on a shared machine, but",
        "not the warm-up of the shipped start, which the random start's time makes up for.",
    ]
    for other in ("plain", "scratch"):
        if "module" in by_arm and other in by_arm:
            found = _compared(by_arm["module"], by_arm[other])
            lines.append(f"Coverage with queries against {titles[other]}: {found}.")
    if "scratch" in by_arm:
        lines += ["", _SCRATCH.strip()]
    return "\n".join([*lines, ""])


def _report_row(title: str, counts: Sequence[list[list[Any]]], cpu: str) -> str:
    drawn = _drawn(counts)
    stated = drawn[:, :2].sum(1)  # where it is nothing, there is no precision
    precision = _bounds(drawn[:, 0] / stated) if stated.all() else "–"
    speaking = ", ".join(str(sum(row[1] + row[2] > 0 for row in seed)) for seed in counts)
    cells = (
        *(title, str(len(counts)), _bounds(_coverage(drawn)), precision),
        *(f"{speaking} of {len(counts[0])}", cpu),
    )
    return f"| {' | '.join(cells)} |"


def _coverage(drawn: np.ndarray) -> np.ndarray:
    return np.asarray(drawn[:, 0] / (drawn[:, 0] + drawn[:, 2]))


def _drawn(counts: Sequence[list[list[Any]]]) -> np.ndarray:
    """Sums of (TP, FP, FN) over seeds; the first row is all patients once, then the draws."""
    rows = [row for seed in counts for row in seed]
    sums = sum_by_patient(
        np.array([row[1:] for row in rows], float), patient_index([row[0] for row in rows])
    )
    draws = np.vstack([np.ones(len(sums)), draw_patients(len(sums), DRAWS, SEED)])
    return np.asarray(draws @ sums)


def _compared(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> str:
    """Difference and ratio over the seeds that both have; the same patients drawn for both.

    A ratio to an arm that states no finding is undefined, and is not given as a number.
    """
    seeds = sorted({cell["seed"] for cell in first} & {cell["seed"] for cell in second})
    one, other = (
        _coverage(_drawn([cell["counts"] for cell in arm if cell["seed"] in seeds]))
        for arm in (first, second)
    )
    silent = [
        cell["seed"]
        for cell in second
        if cell["seed"] in seeds and not any(row[1] + row[2] for row in cell["counts"])
    ]
    difference = f"difference {_bounds(one - other, '+.3f')}"
    if not other.all():
        return f"{difference}, ratio undefined (the other states no finding that is there)"
    ratio = f"{difference}, ratio {_bounds(one / other)}"
    if not silent:
        return ratio
    which = ", ".join(str(seed) for seed in silent)
    return f"{ratio} of pooled seeds, undefined on seeds {which}, where the other states nothing"


def _bounds(values: np.ndarray, form: str = ".3f") -> str:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return f"{values[0]:{form}} [{low:{form}}, {high:{form}}]"


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


def _targets(by_arm: dict[str, list[dict[str, Any]]]) -> str:
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
        found = f"{_compared(runs, by_arm['scratch'])}; scratch hardly looks at the scan"
        rows.append(f"| Coverage 1.3 times that of scratch at equal time | {found} |")
    else:
        rows.append("| Coverage 1.3 times that of scratch at equal time | not measured yet |")
    rows.append("| nodules under 6 mm: Coverage doubled by the second look | not measured |")
    return _TARGETS.lstrip("\n") + "\n".join(rows) + "\n"
