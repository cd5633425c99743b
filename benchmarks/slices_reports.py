"""What the arms of the slices study write, compared, and how much of it hangs on the scan."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ctscribe.measure.intervals import draw_patients, patient_index, sum_by_patient

DRAWS, SEED = 2000, 0
_TITLES = {
    "module": "warm start, finding queries, λ = 0.1",
    "plain": "warm start alone",
    "scratch": "random start, tower learning, equal total time",
}
_HOLD = """
## How much the reports hang on the scan

Shuffled: Coverage where the scans exchange their texts at random, mean and 95 % range of the
shuffles; reports that do not hang on the scan have no more in their own places. Mismatch gap: what
another patient's scan costs the true report more than the own, test split, nats per token, at the
checkpoint that wrote.

| system | seed | different texts | Coverage | shuffled | mismatch gap |
|---|---|---|---|---|---|
"""


def reports(by_arm: dict[str, list[dict[str, Any]]], recipe: dict[str, Any]) -> str:
    """The section on reports, of cells by their arm and the recipe they share."""
    lines = [
        "## Reports",
        "",
        "| system | seeds | Coverage | Precision | scans that state a finding | CPU s per cell |",
        "|---|---|---|---|---|---|",
    ]
    for arm, title in _TITLES.items():
        if arm in by_arm:
            cpu_s = np.mean([cell["cpu_s"] for cell in by_arm[arm]])
            lines.append(_report_row(title, [c["counts"] for c in by_arm[arm]], f"{cpu_s:.0f}"))
    if "module" in by_arm:
        counts = [cell["template_counts"] for cell in by_arm["module"]]
        lines.append(_report_row("labels → template (`--generator template`)", counts, "–"))
    lines += [
        "",
        "CPU seconds include writing and the measurements of the cell but for those of the next",
        "section, on a shared machine, and not the warm-up of the shipped start, which the random",
        "start's time makes up for.",
    ]
    for other in ("plain", "scratch"):
        if "module" in by_arm and other in by_arm:
            found = compared(by_arm["module"], by_arm[other])
            lines.append(f"Coverage with queries against {_TITLES[other]}: {found}.")
    written = {arm: by_arm[arm] for arm in _TITLES if arm in by_arm}
    return "\n".join([*lines, *_hold_on_scan(written), *_random_start(written, recipe), ""])


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


def compared(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> str:
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


def _hold_on_scan(written: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = ["", _HOLD.strip()]
    for arm, runs in written.items():
        for cell in runs:
            name, own = f"{_TITLES[arm]} | {cell['seed']}", f"{_coverage_of(cell):.3f}"
            facts = cell.get("hold_on_scan")
            if facts is None:
                lines.append(f"| {name} | not recorded | {own} | not recorded | not recorded |")
                continue
            texts = f"{facts['texts']} of {len(cell['counts'])}"
            shuffled = _limits(facts["shuffled_coverage"], ".3f")
            gap = _limits(facts["mismatch_gap"], "+.4f")
            lines.append(f"| {name} | {texts} | {own} | {shuffled} | {gap} |")
    return lines


def _random_start(written: dict[str, list[dict[str, Any]]], recipe: dict[str, Any]) -> list[str]:
    """What the facts of the random start say of it as a baseline."""
    runs = [cell for cell in written.get("scratch", []) if "hold_on_scan" in cell]
    if not runs:
        return []
    one_text = _seeds(cell for cell in runs if cell["hold_on_scan"]["texts"] == 1)
    beyond = _seeds(
        cell
        for cell in runs
        if _coverage_of(cell) > cell["hold_on_scan"]["shuffled_coverage"]["high"]
    )
    lines = [
        "",
        f"Of the random start's seeds ({_seeds(runs)}) these write one text for all scans:",
        f"{one_text}; these have Coverage above the range of their shuffled texts: {beyond}.",
    ]
    warm = [
        cell["hold_on_scan"]["mismatch_gap"]["value"]
        for arm in ("module", "plain")
        for cell in written.get(arm, [])
        if "hold_on_scan" in cell
    ]
    gaps = [cell["hold_on_scan"]["mismatch_gap"]["value"] for cell in runs]
    largest = f"Its largest mismatch gap is {max(gaps):+.4f} nats per token"
    lines.append(
        f"{largest}, the warm start's smallest {min(warm):+.4f}." if warm else largest + "."
    )
    rate = recipe["train"]["tower_learning_rate"] or recipe["train"]["learning_rate"]
    return [
        *lines,
        f"Its tower learns at the recipe's rate for the language model ({rate:g}, AdamW), not",
        "sought for this arm (`docs/LOG.md`): a ratio to it says little about finding queries.",
    ]


def _coverage_of(cell: dict[str, Any]) -> float:
    found, _, missed = np.sum([row[1:] for row in cell["counts"]], axis=0)
    return float(found / (found + missed))


def _limits(part: dict[str, float], form: str) -> str:
    return f"{part['value']:{form}} [{part['low']:{form}}, {part['high']:{form}}]"


def _seeds(cells: Iterable[dict[str, Any]]) -> str:
    return ", ".join(str(cell["seed"]) for cell in cells) or "none"
