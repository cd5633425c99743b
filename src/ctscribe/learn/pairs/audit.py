"""What negatives may teach besides the scan: skew in who is shown instead of whom.

In: the rows of ``pairs.jsonl``. Out: counts, pictures, and a sentence for each skew.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ctscribe.base.files import write_json
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.dataset import pair_up
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS

SICKER_LIMIT = 0.65
TOP_USE_LIMIT = 0.25
RELAXED_LIMIT = 0.05
SCANNER_LIMIT = 0.10
NUM_EXAMPLES = 6
_PER_ROW = 3


def write_audit(prepared: Prepared, out_dir: Path, pairs: Sequence[PairRow]) -> list[str]:
    """Writes ``pairs_audit.json``, ``pairs_audit.png`` and, with volumes, ``pairs_examples.png``.

    Returns:
        One sentence for each skew a reader should know of.
    """
    audit = audit_pairs(prepared.studies, pairs)
    write_json(out_dir / "pairs_audit.json", audit)
    _draw_counts(audit, out_dir / "pairs_audit.png")
    _draw_examples(prepared, pairs, out_dir / "pairs_examples.png")
    warnings: list[str] = audit["warnings"]
    return warnings


def audit_pairs(studies: Sequence[StudyRow], pairs: Sequence[PairRow]) -> dict[str, Any]:
    """Measures the negatives of ``pairs``; quantities that do not apply are None.

    ``studies`` must hold every volume named.
    """
    by_name = {study.volume_name: study for study in studies}
    whole = pair_up(pairs)
    negatives = [negative for _, negative in whole if negative is not None]
    others = [row for row in negatives if row.volume is not None]
    shown = [(by_name[row.study], by_name[str(row.volume)]) for row in others]
    disputed = Counter(finding for row in negatives for finding in row.disputed or ())
    audit: dict[str, Any] = {
        "num_positives": len(whole),
        "num_negatives": len(negatives),
        "num_noise": sum(row.volume is None for row in negatives),
        "disputed": {finding: disputed[finding] for finding in FINDINGS if disputed[finding]},
        "label_distance": None,
        "share_relaxed": None,
        "reuse": None,
        "direction": None,
        "scanner": None,
    }
    if shown:
        distances = [row.label_distance for row in others if row.label_distance is not None]
        audit["label_distance"] = {str(d): n for d, n in sorted(Counter(distances).items())}
        audit["share_relaxed"] = sum(row.relaxed_by > 0 for row in others) / len(others)
        audit["reuse"] = _reuse([own.volume_name for _, own in shown], len(whole))
        audit["direction"] = _direction(shown)
        audit["scanner"] = _scanner(shown)
    return audit | {"warnings": _warnings(audit)}


def _reuse(used: Sequence[str], num_volumes: int) -> dict[str, Any]:
    times = sorted(Counter(used).values(), reverse=True)
    top = max(1, round(0.05 * num_volumes))
    return {
        "volumes_used": len(times),
        "most_often": times[0],
        "share_of_top_5_percent": sum(times[:top]) / len(used),
        "volumes_by_times_used": {str(n): k for n, k in sorted(Counter(times).items())},
    }


def _direction(shown: Sequence[tuple[StudyRow, StudyRow]]) -> dict[str, float] | None:
    differences = [
        sum(other.labels) - sum(own.labels)
        for own, other in shown
        if own.labels is not None and other.labels is not None
    ]
    if not differences:
        return None
    signs = np.sign(differences)
    return {
        "sicker": float((signs > 0).mean()),
        "healthier": float((signs < 0).mean()),
        "equal": float((signs == 0).mean()),
    }


def _scanner(shown: Sequence[tuple[StudyRow, StudyRow]]) -> dict[str, float] | None:
    """Share of pairs from one manufacturer, and what two independent draws would give."""
    known = [
        (a.manufacturer, b.manufacturer) for a, b in shown if a.manufacturer and b.manufacturer
    ]
    if not known:
        return None
    own = Counter(pair[0] for pair in known)
    chance = sum((count / len(known)) ** 2 for count in own.values())
    return {"matched": sum(a == b for a, b in known) / len(known), "by_chance": chance}


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
    """Draws the middle frames of a few pairs whose negative is a volume; nothing without any.

    What is disputed stands above them. Names are left out, so that the picture may be shown.
    """
    from ctscribe.base.figures import new_figure, write_figure

    shown = [row for row in pairs if row.role == "negative" and row.volume is not None]
    if not shown:
        return
    picked = [shown[n] for n in np.linspace(0, len(shown) - 1, NUM_EXAMPLES).astype(int)]
    picked = list(dict.fromkeys(picked))
    num_rows = -(-len(picked) // _PER_ROW)
    figure, places = new_figure(5.0 * _PER_ROW, 3.0 * num_rows, _PER_ROW, num_rows)
    for axes in places:
        axes.set_axis_off()
    for axes, row in zip(places, picked, strict=False):
        studies = (prepared.by_name[name] for name in (row.study, str(row.volume)))
        own, other = (_middle(prepared.frames(study)) for study in studies)
        axes.imshow(_side_by_side(own, other), cmap="gray", vmin=0, vmax=255)
        axes.set_title("disputed: " + _few(row.disputed or ()), fontsize=7, wrap=True)
    figure.suptitle("Left the study, right what is shown instead")
    write_figure(path, figure)


def _middle(frames: Frames) -> UInt8[np.ndarray, "height width"]:
    """The middle frame; the last channel, which shows lung where there are three windows."""
    return np.asarray(frames[len(frames) // 2, ..., 2])


def _side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    height = max(len(first), len(second))
    parts = [np.pad(part, ((0, height - len(part)), (0, 0))) for part in (first, second)]
    return np.hstack(parts)


def _few(findings: Sequence[str]) -> str:
    return ", ".join(findings[:4]) + (f" and {len(findings) - 4} more" if len(findings) > 4 else "")
