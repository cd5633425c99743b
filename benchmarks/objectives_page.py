"""The study's page and figure from its raw files; see study_objectives.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from objectives_scores import METRICS, Comparison, Estimate, compare_with_origin, estimates

from ctscribe.base.files import atomic_write, read_json, write_text
from ctscribe.show.tables import Table, Value, to_markdown

TITLES = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "bleu_4": "BLEU-4",
    "gap": "Mismatch gap",
}
Cells = Mapping[str, Sequence[Mapping[str, Any]]]
"""Arm → its finished cells, by seed."""


def write_page(raw: Path) -> Path:
    cells = read_cells(raw)
    if "origin" not in cells:
        raise SystemExit("No cell of Origin is finished yet; run the study first.")
    compared = {metric: compare_with_origin(cells, metric) for metric in METRICS if len(cells) > 1}
    chosen = choose(cells)
    draw_figure(cells, compared["coverage"], raw / "objectives.png")
    page = raw.with_suffix(".md")
    parts = [
        introduction(cells, read_json(raw / "run.json")),
        f"![Origin's curve, and differences of Coverage]({raw.name}/objectives.png)\n",
        verdict(chosen, compared),
        to_markdown(validation_table(cells, chosen)),
        to_markdown(test_table(cells)),
        to_markdown(difference_table(cells, compared)),
        to_markdown(training_table(cells)),
    ]
    write_text(page, "\n".join(parts))
    return page


def read_cells(raw: Path) -> dict[str, list[dict[str, Any]]]:
    from study_objectives import ARMS, SEEDS, raw_path

    found = {
        arm: [read_json(raw_path(arm, seed)) for seed in SEEDS if raw_path(arm, seed).exists()]
        for arm in ARMS
    }
    return {arm: cells for arm, cells in found.items() if cells}


def choose(cells: Cells) -> str | None:
    """The arm that becomes the recipe, by a rule fixed before any test score.

    Of the arms whose mean validation precision is no lower than Origin's, the one with the largest
    mean gain of Coverage; Origin where none gains; None while no other arm has all its seeds.
    """
    from study_objectives import SEEDS

    gains = {
        arm: (validation_gain(cells, arm, "coverage"), validation_gain(cells, arm, "precision"))
        for arm in cells
        if len(cells[arm]) == len(SEEDS)
    }
    if len(gains) < 2:
        return None
    fair = {arm: gain for arm, (gain, precision) in gains.items() if precision >= 0}
    return max(fair, key=lambda arm: fair[arm])


def validation_gain(cells: Cells, arm: str, metric: str) -> float:
    seeds = {cell["seed"] for cell in cells[arm]}
    same = [cell for cell in cells["origin"] if cell["seed"] in seeds]
    return mean_of(cells[arm], metric) - mean_of(same, metric)


def mean_of(cells: Sequence[Mapping[str, Any]], metric: str) -> float:
    return float(np.mean([cell["validation"][metric] for cell in cells]))


def introduction(cells: Cells, run: Mapping[str, Any]) -> str:
    recipe = run["recipe"]
    first = cells["origin"][0]
    num_scans = len(first["test"]["patient"].split())
    num_patients = len(set(first["test"]["patient"].split()))
    missing = unfinished(cells)
    lines = [
        "# Which negatives help?",
        "",
        "Made by `make study-objectives` from the files in `objectives/`, one per arm and seed. "
        "Synthetic phantoms with small lesions drawn at twice their size, the tiny model from "
        "`starts/tiny`, as the commit below has it, with its tower frozen: nothing here is about "
        "patients, and what holds for a language model of 0.7 million weights need not hold for "
        "one of 7 billion.",
        "",
        f"Phantoms of seed {recipe['phantom']['seed']}, drawn for this study: "
        f"{first['training']['updates'] * recipe['train']['pairs_per_device'] // epochs(first)} "
        f"training scans seen {epochs(first)} times by every arm, in the same order per seed; "
        f"{num_scans} test scans of {num_patients} patients, read once per cell with the last "
        "weights of a cosine schedule. Arms, β and margins were chosen on validation patients "
        "alone (`docs/LOG.md`).",
        "",
        "Intervals: 95 %, 2,000 resamples of test patients, scores averaged over the seeds within "
        "each draw, differences paired by patient. They do not cover the draw of training seeds; "
        "the range over seeds stands beside them. p: approximate randomisation over patients, "
        "adjusted by Holm over the arms.",
    ]
    if missing:
        lines += ["", f"**Not finished:** {', '.join(missing)}. The rest is as it will stay."]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines += ["", f"ctscribe {run['ctscribe']} at {run['commit']}; {versions}.", ""]
    return "\n".join(lines)


def epochs(cell: Mapping[str, Any]) -> int:
    return max(int(epoch) for epoch in cell["curve"])


def unfinished(cells: Cells) -> list[str]:
    from study_objectives import ARMS, SEEDS

    done = {arm: len(cells.get(arm, ())) for arm in ARMS}
    return [f"{arm} ({num} of {len(SEEDS)} seeds)" for arm, num in done.items() if num < len(SEEDS)]


def verdict(chosen: str | None, compared: Mapping[str, Mapping[str, Comparison]]) -> str:
    lines = ["## What helps, and what does not", ""]
    for arm, coverage in compared["coverage"].items():
        precision, gap = compared["precision"][arm], compared["gap"][arm]
        seeds = f"{len(coverage.by_seed)} seed{'s' if len(coverage.by_seed) > 1 else ''}"
        lines.append(
            f"- **{arm}** ({seeds}): Coverage {direction(coverage)}, precision "
            f"{direction(precision)}, mismatch gap {direction(gap)}."
        )
    return "\n".join([*lines, "", conclusion(chosen, compared), ""])


def conclusion(chosen: str | None, compared: Mapping[str, Mapping[str, Comparison]]) -> str:
    if chosen is None:
        return "No arm but Origin has all its seeds yet, so nothing is chosen."
    if chosen == "origin":
        return (
            "On validation no finished arm gains Coverage at a precision no lower than Origin's: "
            "by the rule fixed before the test split was read, no negative is recommended for "
            "Coverage. Aimed at: an arm whose Coverage exceeds Origin's with an interval that "
            "excludes zero, at a precision no lower. **Not reached.**"
        )
    coverage, precision = compared["coverage"][chosen], compared["precision"][chosen]
    met = coverage.low > 0 and precision.difference >= 0
    return (
        f"Chosen on validation, by a rule fixed before the test split was read (of the finished "
        f"arms whose precision is no lower than Origin's, the one that gains most Coverage): "
        f"**{chosen}**. Aimed at: its Coverage above Origin's with an interval that excludes "
        f"zero, at a precision no lower. **{'Reached' if met else 'Not reached'}**: Coverage "
        f"{coverage}, precision {precision}."
    )


def direction(found: Comparison) -> str:
    if found.low > 0:
        return f"higher ({found})"
    return f"lower ({found})" if found.high < 0 else f"not different ({found})"


def validation_table(cells: Cells, chosen: str | None) -> Table:
    rows = []
    for arm, runs in cells.items():
        values = [f"{mean_of(runs, metric):.3f}" for metric in ("coverage", "precision", "f1")]
        gains = [f"{validation_gain(cells, arm, m):+.3f}" for m in ("coverage", "precision", "f1")]
        rows.append(
            (arm + ("  (chosen)" if arm == chosen else ""), *values, *gains, str(len(runs)))
        )
    columns = ("Arm", "Coverage", "Precision", "F1", "Δ Coverage", "Δ Precision", "Δ F1", "Seeds")
    return Table("Validation, means over seeds", columns, tuple(rows))


def test_table(cells: Cells) -> Table:
    rows = [
        (arm, *(as_cell(found) for found in estimates(runs).values()))
        for arm, runs in cells.items()
    ]
    notes = (
        "Coverage: TP/(TP+FN), precision: TP/(TP+FP) over all scans and 18 findings, labels read "
        "by the rules; BLEU-4: ctrate-raw, corpus level; gap: nats per token, cross entropy of "
        "the true report on another patient's scan minus on the own.",
    )
    return Table("Test", ("Arm", *(TITLES[m] for m in METRICS)), tuple(rows), notes)


def difference_table(cells: Cells, compared: Mapping[str, Mapping[str, Comparison]]) -> Table:
    rows = []
    for arm in compared["coverage"]:
        found = [compared[metric][arm] for metric in METRICS]
        seeds = ", ".join(f"{d:+.3f}" for d in compared["coverage"][arm].by_seed)
        rows.append((arm, *(f"{c} {p_value(c)}" for c in found), seeds))
    columns = ("Arm − Origin", *(TITLES[m] for m in METRICS), "Coverage, seed by seed")
    return Table("Test, paired differences from Origin", columns, tuple(rows))


def p_value(found: Comparison) -> str:
    return "p<0.001" if found.p_holm < 0.001 else f"p={found.p_holm:.3f}"


def training_table(cells: Cells) -> Table:
    names = {
        "positive_ce": "CE own",
        "negative_finding_ce": "CE wrong, findings",
        "negative_boilerplate_ce": "CE wrong, boilerplate",
        "positive_grad_norm": "‖g⁺‖",
        "negative_grad_norm": "‖g⁻‖",
        "share_skipped_overall": "Skipped, whole run",
        "validation_ce": "Validation CE",
    }
    rows = []
    for arm, runs in cells.items():
        values = []
        for name in names:
            known = [run["training"][name] for run in runs if run["training"][name] is not None]
            values.append(f"{np.mean(known):.3f}" if known else "–")
        cpu = np.mean([run["cpu_s"] for run in runs])
        rows.append((arm, *values, f"{cpu:.0f}"))
    notes = ("Over the last tenth of the updates, nats per token, means over seeds.",)
    columns = ("Arm", *names.values(), "CPU s per cell")
    return Table("Training", columns, tuple(rows), notes)


def as_cell(found: Estimate) -> Value:
    return Value(found.value, found.low, found.high)


def draw_figure(cells: Cells, coverage: Mapping[str, Comparison], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    for metric, colour in (("coverage", "#0072B2"), ("precision", "#D55E00"), ("f1", "#009E73")):
        for cell in cells["origin"]:
            curve = {int(epoch): point[metric] for epoch, point in cell["curve"].items()}
            is_first = cell is cells["origin"][0]
            label = TITLES[metric] if is_first else None
            left.plot(
                *zip(*sorted(curve.items()), strict=True),
                "o-",
                color=colour,
                alpha=0.7,
                markersize=3,
                label=label,
            )
    left.set(xlabel="epoch", ylabel="validation, Origin, one line per seed", ylim=(0, 1))
    left.legend(frameon=False)
    for place, found in enumerate(reversed(coverage.values())):
        right.plot([found.low, found.high], [place, place], color="#666666")
        right.plot(found.difference, place, "o", color="#0072B2")
        right.plot(found.by_seed, [place + 0.2] * len(found.by_seed), "|", color="#666666")
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(coverage)), list(reversed(coverage)))
    right.set_ylim(-0.6, len(coverage) - 0.4)
    right.set_xlabel("Coverage minus Origin's, test, 95 % interval; ticks: seeds")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
