"""What all figures share: colours, fonts, bars and lines with intervals, and writing to a file.

Colours are Okabe and Ito's (2008), told apart by readers with any colour vision; figures keep
a white ground so that they read the same on paper, in print and on a dark page.
"""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ctscribe.base.files import atomic_write

Estimate = tuple[float, float, float]
"""Value, lower and upper bound of its 95 % interval."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
MARKERS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))
"""Colour and shape of the points of each line."""


def new_figure(
    width: float, height: float, num_across: int = 1, num_down: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure of width × height inches, and its axes row by row."""
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(num_down, num_across, squeeze=False)
    return figure, [*axes.ravel()]


def image_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content: PNG at 160 dots per inch, or SVG; no date inside."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with style():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def write_figure(path: Path, figure: Figure) -> None:
    """Writes ``path`` as PNG or SVG by its suffix, atomically."""
    with atomic_write(path) as file:
        file.write(image_bytes(figure, "svg" if path.suffix == ".svg" else "png"))


def style() -> AbstractContextManager[None]:
    """Fonts and spines of every figure, for the length of a block."""
    return rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "svg.fonttype": "path",
            "svg.hashsalt": "ctscribe",
        }
    )


def bars(
    axes: Axes,
    findings: list[str],
    estimates: Mapping[str, Estimate],
    offset: float,
    colour: str,
    label: str,
) -> None:
    """Horizontal bars with intervals, one per finding that has an estimate."""
    shown = [(row + offset, estimates[f]) for row, f in enumerate(findings) if f in estimates]
    axes.barh(
        [row for row, _ in shown],
        [estimate[0] for _, estimate in shown],
        height=0.36,
        xerr=whiskers([estimate for _, estimate in shown]),
        color=colour,
        error_kw={"ecolor": "black", "elinewidth": 0.8, "capsize": 1.5},
        label=label,
    )


def line(
    axes: Axes, at: list[float], estimates: list[Estimate], marker: tuple[str, str], label: str
) -> None:
    """A line with intervals; its marker is one of `MARKERS`."""
    axes.errorbar(
        at,
        [estimate[0] for estimate in estimates],
        yerr=whiskers(estimates),
        color=marker[0],
        marker=marker[1],
        capsize=2,
        linewidth=1.4,
        elinewidth=0.9,
        label=label,
    )


def name_findings(axes: Axes, findings: list[str], num_positive: Mapping[str, int]) -> None:
    """Findings down the axis, each with its number of positive scans; scores from 0 to 1 across."""
    axes.set_yticks(range(len(findings)), [f"{name}  ({num_positive[name]})" for name in findings])
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)


def whiskers(estimates: list[Estimate]) -> list[list[float]]:
    """Distances to the bounds; a bound on the wrong side of its value, by rounding, counts as 0."""
    below = [max(value - low, 0.0) for value, low, _ in estimates]
    above = [max(high - value, 0.0) for value, _, high in estimates]
    return [below, above]
