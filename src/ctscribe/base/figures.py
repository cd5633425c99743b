"""What all figures share: colours, fonts, bars and lines with intervals, and writing to a file.

A colour has one meaning in all figures, and a marker of its own for readers who cannot tell
colours apart. `BLUE`, `ORANGE` and `GREEN` are from Okabe and Ito (2008). Figures are drawn on
white, and again on a dark background for pages that follow their reader's colour scheme.
"""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgba, to_rgba_array
from matplotlib.figure import Figure

from ctscribe.base.files import atomic_write

Estimate = tuple[float, float, float]
"""Value, lower and upper bound of its 95 % interval."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
MEANINGS: Mapping[str, tuple[str, str]] = {
    "Coverage": (BLUE, "o"),
    "Precision": (ORANGE, "s"),
    "BLEU-4": (GREEN, "^"),
    "References": (GREY, "D"),
    "Origin": ("#8B5E3C", "o"),
    "Gauss": ("#A87B00", "s"),
    "Heter": ("#C2528B", "^"),
    "Ours": ("#6A4FB3", "D"),
    "Model": ("#00858A", "o"),
    "own scan": ("#2B3038", "o"),
    "another scan": ("#8A8B10", "s"),
}
"""Metrics, systems, and scans that a model was shown → colour and marker, in every figure."""
MARKERS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))
"""Colour and marker of lines that are not among `MEANINGS`."""
_ON_DARK = {
    "#ffffff": "#1b1f23",
    "#000000": "#e6e8e9",
    "#2b3038": "#e6e8e9",
    GREY.lower(): "#a3adb5",
    BLUE.lower(): "#4fb0e8",
    ORANGE.lower(): "#ff8a4c",
    GREEN.lower(): "#35c99a",
    "#8b5e3c": "#c99a74",
    "#a87b00": "#e0b23c",
    "#c2528b": "#ee8fbe",
    "#6a4fb3": "#a996ee",
    "#00858a": "#45c4c9",
    "#8a8b10": "#cfd05a",
}
"""Colour on white → colour on dark. No value is also a key, so darkening twice changes nothing."""
_COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


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


def darken(figure: Figure) -> None:
    """Redraws a figure for a dark background; colours keep their hues and become lighter."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # creates the ticks, which are recoloured too
    for artist in figure.findobj():
        for part in _COLOURED:
            if not hasattr(artist, f"get_{part}"):
                continue
            colours = to_rgba_array(getattr(artist, f"get_{part}")())
            dark = [to_rgba(_ON_DARK.get(to_hex(each), to_hex(each)), each[3]) for each in colours]
            if dark:
                is_many = isinstance(artist, Collection)
                getattr(artist, f"set_{part}")(dark if is_many else dark[0])


def write_figure(path: Path, figure: Figure) -> None:
    """Writes ``path`` as PNG or SVG by its suffix, atomically."""
    with atomic_write(path) as file:
        file.write(image_bytes(figure, "svg" if path.suffix == ".svg" else "png"))


def style() -> AbstractContextManager[None]:
    """Applies the fonts and spines of our figures within a block."""
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
    """Draws a horizontal bar with its interval for each finding that has an estimate."""
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
    """Draws a line with intervals; ``marker`` is one of `MARKERS`."""
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
    """Labels the y axis with findings and their positive scans; the x axis runs from 0 to 1."""
    axes.set_yticks(range(len(findings)), [f"{name}  ({num_positive[name]})" for name in findings])
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)


def whiskers(estimates: list[Estimate]) -> list[list[float]]:
    """Distances from value to bounds, at least 0 where rounding put a bound on the wrong side."""
    below = [max(value - low, 0.0) for value, low, _ in estimates]
    above = [max(high - value, 0.0) for value, _, high in estimates]
    return [below, above]
