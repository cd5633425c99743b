"""Audits the negatives for shortcuts: biases that would let a model tell pairs apart blindly.

In: the rows of ``pairs.jsonl``. Out: counts, figures, and a sentence for each bias found.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ctscribe.base.files import write_json
from ctscribe.base.rows import PairRow, each_row
from ctscribe.data.prepared import AnyStudy, Prepared, read_frames
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS

SICKER_LIMIT = 0.65
"""Share of negatives with more (or fewer) findings than the study that is worth a warning."""
TOP_USE_LIMIT = 0.25
"""The same for the share of negatives that the most used 5 % of the volumes give."""
RELAXED_LIMIT = 0.05
"""The same for the share of negatives whose label distance had to be relaxed."""
SCANNER_LIMIT = 0.10
"""The same for how far the share of pairs of one manufacturer is from chance."""
NUM_EXAMPLES = 6
_PER_ROW = 3


def write_audit(prepared: Prepared, out_dir: Path) -> list[str]:
    """Writes ``pairs_audit.json``, ``pairs_audit.png`` and, with volumes, ``pairs_examples.png``.

    ``out_dir`` holds the ``pairs.jsonl`` of the prepared studies.

    Returns:
        One sentence for each bias found.
    """
    path = out_dir / "pairs.jsonl"
    audit = audit_pairs(prepared.outlines, each_row(path, PairRow))
    write_json(out_dir / "pairs_audit.json", audit)
    _draw_counts(audit, out_dir / "pairs_audit.png")
    num_shown = audit["num_negatives"] - audit["num_noise"]
    shown = (row for row in each_row(path, PairRow) if row.role == "negative" and row.volume)
    chosen = {*np.linspace(0, num_shown - 1, NUM_EXAMPLES).astype(int).tolist()}
    picked = [row for number, row in enumerate(shown) if number in chosen]
    if picked:
        _draw_examples(prepared, picked, out_dir / "pairs_examples.png")
    warnings: list[str] = audit["warnings"]
    return warnings


def audit_pairs(studies: Sequence[AnyStudy], pairs: Iterable[PairRow]) -> dict[str, Any]:
    """Statistics of the negatives of ``pairs``; None for those that do not apply.

    ``studies`` must contain every volume that is named.
    """
    by_name = {study.volume_name: study for study in studies}
    roles, disputed, distances = Counter[str](), Counter[str](), Counter[int]()
    used, signs, scanners = Counter[str](), Counter[int](), Counter[tuple[str, str]]()
    num_relaxed = 0
    for row in pairs:
        roles[row.role] += 1
        disputed.update(row.disputed or ())
        if row.role == "positive" or row.volume is None:
            continue
        own, other = by_name[row.study], by_name[row.volume]
        used[row.volume] += 1
        num_relaxed += row.relaxed_by > 0
        if row.label_distance is not None:
            distances[row.label_distance] += 1
        if own.labels is not None and other.labels is not None:
            signs[int(np.sign(sum(other.labels) - sum(own.labels)))] += 1
        if own.manufacturer and other.manufacturer:
            scanners[own.manufacturer, other.manufacturer] += 1
    num_shown = used.total()
    audit: dict[str, Any] = {
        "num_positives": roles["positive"],
        "num_negatives": roles["negative"],
        "num_noise": roles["negative"] - num_shown,
        "disputed": {finding: disputed[finding] for finding in FINDINGS if disputed[finding]},
        "label_distance": None,
        "share_relaxed": None,
        "reuse": None,
        "direction": None,
        "scanner": None,
    }
    if num_shown:
        audit["label_distance"] = {str(d): n for d, n in sorted(distances.items())}
        audit["share_relaxed"] = num_relaxed / num_shown
        audit["reuse"] = _reuse(used, roles["positive"])
        audit["direction"] = _direction(signs)
        audit["scanner"] = _scanner(scanners)
    return audit | {"warnings": _warnings(audit)}


def _reuse(used: Counter[str], num_volumes: int) -> dict[str, Any]:
    times = sorted(used.values(), reverse=True)
    top = max(1, round(0.05 * num_volumes))
    return {
        "volumes_used": len(times),
        "most_often": times[0],
        "share_of_top_5_percent": sum(times[:top]) / used.total(),
        "volumes_by_times_used": {str(n): k for n, k in sorted(Counter(times).items())},
    }


def _direction(signs: Counter[int]) -> dict[str, float] | None:
    if not signs:
        return None
    names = {"sicker": 1, "healthier": -1, "equal": 0}
    return {name: signs[sign] / signs.total() for name, sign in names.items()}


def _scanner(pairs: Counter[tuple[str, str]]) -> dict[str, float] | None:
    """Share of pairs whose volumes have the same manufacturer, and the share expected by chance."""
    if not pairs:
        return None
    own: Counter[str] = Counter()
    for (first, _), count in pairs.items():
        own[first] += count
    chance = sum((count / pairs.total()) ** 2 for count in own.values())
    matched = sum(count for (first, second), count in pairs.items() if first == second)
    return {"matched": matched / pairs.total(), "by_chance": chance}


def _warnings(audit: dict[str, Any]) -> list[str]:
    found = []
    direction, reuse, scanner = audit["direction"], audit["reuse"], audit["scanner"]
    for kind, number in (("sicker", "more"), ("healthier", "fewer")):
        if direction and direction[kind] > SICKER_LIMIT:
            found.append(
                f"{direction[kind]:.0%} of the volumes shown instead have {number} findings than "
                f"the study: the model can learn that a {kind} scan contradicts a report"
            )
    if reuse and reuse["share_of_top_5_percent"] > TOP_USE_LIMIT:
        found.append(
            f"5 % of the volumes give {reuse['share_of_top_5_percent']:.0%} of the negatives: "
            "the model can learn these volumes by heart"
        )
    if scanner and abs(scanner["matched"] - scanner["by_chance"]) > SCANNER_LIMIT:
        found.append(
            f"{scanner['matched']:.0%} of the pairs come from one manufacturer where chance gives "
            f"{scanner['by_chance']:.0%}: the model can learn to tell scanners apart instead"
        )
    if audit["share_relaxed"] and audit["share_relaxed"] > RELAXED_LIMIT:
        found.append(
            f"for {audit['share_relaxed']:.0%} of the studies nobody differed enough, and "
            "the required distance was lowered"
        )
    return found


def _draw_counts(audit: dict[str, Any], path: Path) -> None:
    from ctscribe.base.figures import new_figure, write_figure

    figure, (left, middle, right, last) = new_figure(14.0, 3.6, num_across=4)
    reuse = audit["reuse"] or {"volumes_by_times_used": {}}
    _bars(left, audit["label_distance"] or {}, "labels that differ", "pairs")
    _bars(middle, reuse["volumes_by_times_used"], "times shown instead", "volumes")
    _bars(right, audit["direction"] or {}, "shown instead is", "share of pairs")
    last.barh([*audit["disputed"]][::-1], [*audit["disputed"].values()][::-1])
    last.set(xlabel="pairs that dispute it")
    last.tick_params(axis="y", labelsize=7)
    figure.suptitle(
        f"{audit['num_positives']} studies, {audit['num_negatives']} negatives: "
        f"{audit['num_noise']} noise"
    )
    write_figure(path, figure)


def _bars(axes: Any, counts: Mapping[str, float | int], x_label: str, y_label: str) -> None:  # noqa: ANN401
    axes.bar([*counts], [*counts.values()])
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_xticks(range(0, len(counts), -(-len(counts) // 12) or 1))


def _draw_examples(prepared: Prepared, pairs: Sequence[PairRow], path: Path) -> None:
    """Draws the middle frames of a few pairs side by side, titled with the disputed findings.

    There are no names in the figure, so it can be shared.
    """
    from ctscribe.base.figures import new_figure, write_figure

    num_rows = -(-len(pairs) // _PER_ROW)
    figure, places = new_figure(5.0 * _PER_ROW, 3.0 * num_rows, _PER_ROW, num_rows)
    for axes in places:
        axes.set_axis_off()
    for axes, row in zip(places, pairs, strict=False):
        names = row.study, str(row.volume)
        own, other = (_middle(read_frames(prepared.folder, name)) for name in names)
        axes.imshow(_side_by_side(own, other), cmap="gray", vmin=0, vmax=255)
        axes.set_title("disputed: " + _few(row.disputed or ()), fontsize=7, wrap=True)
    figure.suptitle("Left the study, right what is shown instead")
    write_figure(path, figure)


def _middle(frames: Frames) -> UInt8[np.ndarray, "height width"]:
    """The last channel of the middle frame; of three windows it is the lung window."""
    return np.asarray(frames[len(frames) // 2, ..., 2])


def _side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    height = max(len(first), len(second))
    parts = [np.pad(part, ((0, height - len(part)), (0, 0))) for part in (first, second)]
    return np.hstack(parts)


def _few(findings: Sequence[str]) -> str:
    return ", ".join(findings[:4]) + (f" and {len(findings) - 4} more" if len(findings) > 4 else "")
