"""How often what cannot be assessed is refused, and good studies with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from ctscribe.confidence.quality import why_not_assessable
from ctscribe.rows import StudyRow
from ctscribe.slices.cache import read_frames
from ctscribe.slices.frames import air_frames, noise_frames
from ctscribe.slices.windows import WINDOWS


def abstention_rates(
    prepared_dir: Path, studies: Sequence[StudyRow], windows: Literal["single", "three"]
) -> dict[str, Any]:
    """Share refused of good studies, and of noise, blank slices and shuffled pixels of their size.

    Args:
        prepared_dir: What `prepare` wrote.
        studies: Good ones.
        windows: In which their frames were made.

    Returns:
        Per kind ``refused``, ``of`` and ``rate`` with its exact 95 % interval.
    """
    refused = dict.fromkeys(("good studies", "noise", "blank", "shuffled pixels"), 0)
    for seed, study in enumerate(studies):
        frames = np.array(read_frames(prepared_dir, study.volume_name))
        slices, height, width, _ = frames.shape
        order = np.random.default_rng(seed).permutation(height * width)
        shuffled = frames.reshape(slices, -1, 3)[:, order].reshape(frames.shape)
        kinds = {
            "good studies": (frames, study.warnings),
            "noise": (noise_frames(seed, slices, (height, width), WINDOWS[windows]), ()),
            "blank": (air_frames(slices, (height, width), WINDOWS[windows]), ()),
            "shuffled pixels": (shuffled, ()),
        }
        for kind, (shown, warnings) in kinds.items():
            refused[kind] += why_not_assessable(shown, warnings) is not None
    return {kind: _rate(count, len(studies)) for kind, count in refused.items()}


def abstention_lines(rates: Mapping[str, Mapping[str, float | int]]) -> str:
    """The rates as Markdown."""
    lines = ["| shown | refused | rate |", "|---|---|---|"]
    for kind, rate in rates.items():
        bounds = f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
        lines.append(f"| {kind} | {rate['refused']} of {rate['of']} | {bounds} |")
    return "\n".join(lines)


def _rate(refused: int, total: int) -> dict[str, float | int]:
    interval = binomtest(refused, total).proportion_ci()
    return {
        "refused": refused,
        "of": total,
        "value": refused / total,
        "low": float(interval.low),
        "high": float(interval.high),
    }
