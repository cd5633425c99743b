"""A few pairs to look at: what a study shows, beside what is shown instead."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctscribe.files import atomic_write
from ctscribe.pairs.anatomy import heal_study
from ctscribe.rows import PairRow, StudyRow
from ctscribe.slices.cache import read_frames
from ctscribe.types import Frames

NUM_EXAMPLES = 6
_PER_ROW = 3


def draw_examples(
    prepared_dir: Path, studies: Sequence[StudyRow], pairs: Sequence[PairRow], path: Path
) -> None:
    """Draws one frame of each of a few pairs whose negative is a volume; nothing without any.

    The frame is the middle one, or for healed studies the one that changed most. What is disputed
    stands above it. Names are left out, so that the picture may be shown.
    """
    from matplotlib.figure import Figure

    shown = [row for row in pairs if row.role == "negative" and row.volume is not None]
    if not shown:
        return
    by_name = {study.volume_name: study for study in studies}
    picked = [shown[n] for n in np.linspace(0, len(shown) - 1, NUM_EXAMPLES).astype(int)]
    picked = list(dict.fromkeys(picked))
    num_rows = -(-len(picked) // _PER_ROW)
    figure = Figure(figsize=(5 * _PER_ROW, 3 * num_rows), layout="constrained")
    for axes in figure.subplots(num_rows, _PER_ROW, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, row in zip(figure.axes, picked, strict=False):
        own, other = _frames(prepared_dir, by_name, row)
        axes.imshow(_side_by_side(own, other), cmap="gray", vmin=0, vmax=255)
        axes.set_title("disputed: " + _few(row.disputed or ()), fontsize=7, wrap=True)
    figure.suptitle("Left the study, right what is shown instead")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _frames(
    prepared_dir: Path, studies: dict[str, StudyRow], row: PairRow
) -> tuple[np.ndarray, np.ndarray]:
    """A frame of each volume; the last channel, which shows lung where there are three windows."""
    own = read_frames(prepared_dir, row.study)
    if row.healing is None:
        other: Frames = read_frames(prepared_dir, str(row.volume))
        return own[len(own) // 2, ..., 2], other[len(other) // 2, ..., 2]
    other = heal_study(studies[row.study], row.healing, own)
    number = int((own != other).sum(axis=(1, 2, 3)).argmax())
    return own[number, ..., 2], other[number, ..., 2]


def _side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    height = max(len(first), len(second))
    parts = [np.pad(part, ((0, height - len(part)), (0, 0))) for part in (first, second)]
    return np.hstack(parts)


def _few(findings: Sequence[str]) -> str:
    return ", ".join(findings[:4]) + (f" and {len(findings) - 4} more" if len(findings) > 4 else "")
