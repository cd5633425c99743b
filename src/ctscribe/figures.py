"""Figures of an experiment: per-finding bars and the curve over β, as PNG and SVG.

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

from ctscribe import RESEARCH_USE
from ctscribe.files import atomic_write

Estimate = tuple[float, float, float]
"""Value, lower and upper bound of its 95 % interval."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_MARKERS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))


def per_finding_figure(
    recall: Mapping[str, Estimate],
    precision: Mapping[str, Estimate],
    num_positive: Mapping[str, int],
) -> Figure:
    """Recall and precision of each finding with intervals, most frequent finding on top.

    Args:
        recall: Finding to its recall in [0, 1].
        precision: Finding to its precision; one that was never predicted is absent and has no bar.
        num_positive: Finding to the number of scans whose reference states it.
    """
    findings = sorted(recall, key=lambda name: (-num_positive[name], name))
    with _style():
        figure = Figure(figsize=(6.2, 0.9 + 0.32 * len(findings)), layout="constrained")
        axes = figure.subplots()
        _bars(axes, findings, recall, -0.19, BLUE, "Recall")
        _bars(axes, findings, precision, 0.19, ORANGE, "Precision")
        _name_findings(axes, findings, num_positive)
        axes.set_xlabel("Share of scans with 95 % interval (in brackets: positive scans)")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def beta_figure(curves: Mapping[str, Mapping[float, Estimate]], strategy: str) -> Figure:
    """Scores over the weight of the negatives, the picture of Table 2.

    Args:
        curves: Metric to {β: estimate}, up to four metrics.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    with _style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for (metric, curve), (colour, marker) in zip(curves.items(), _MARKERS, strict=False):
            betas = sorted(curve)
            values = [curve[beta][0] for beta in betas]
            axes.errorbar(
                betas,
                values,
                yerr=_whiskers([curve[beta] for beta in betas]),
                color=colour,
                marker=marker,
                capsize=2,
                linewidth=1.4,
                elinewidth=0.9,
                label=metric,
            )
        axes.set_xticks(sorted({beta for curve in curves.values() for beta in curve}))
        axes.set_xlabel(f"β, weight of the {strategy} negatives")
        axes.set_ylabel("Score, with 95 % interval")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def strata_figure(
    curves: Mapping[str, Mapping[str, Estimate]], num_scans: Mapping[str, int]
) -> Figure | None:
    """Coverage over groups of scans, one curve per system; None where no group has a score.

    Args:
        curves: System to {stratum: estimate}, up to four systems.
        num_scans: Strata in the order wanted, with their sizes; those without a score are left
            out.
    """
    strata = [name for name in num_scans if any(name in curve for curve in curves.values())]
    if not strata:
        return None
    with _style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        shift = 0.12
        for number, ((system, curve), (colour, marker)) in enumerate(
            zip(curves.items(), _MARKERS, strict=False)
        ):
            shown = [(place, curve[name]) for place, name in enumerate(strata) if name in curve]
            axes.errorbar(
                [place + shift * (number - (len(curves) - 1) / 2) for place, _ in shown],
                [estimate[0] for _, estimate in shown],
                yerr=_whiskers([estimate for _, estimate in shown]),
                color=colour,
                marker=marker,
                capsize=2,
                linewidth=1.4,
                elinewidth=0.9,
                label=system,
            )
        axes.set_xticks(range(len(strata)), [f"{name}\n({num_scans[name]})" for name in strata])
        axes.set_xlim(-0.5, len(strata) - 0.5)
        axes.set_xlabel("Largest nodule (in brackets: scans)")
        axes.set_ylabel("Coverage, with 95 % interval")
        axes.set_ylim(0, 1.02)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def card_figure(
    title: str,
    panels: Mapping[str, Mapping[str, Estimate]],
    recall: Mapping[str, Mapping[str, Estimate]],
    num_positive: Mapping[str, int],
) -> Figure:
    """What a model makes of its scans and of what is shown instead of them.

    Args:
        title: Above everything.
        panels: Metric to {what was shown: estimate}, one panel each. The first has every view,
            gives their order, and may have any scale; the others are in [0, 1].
        recall: Two views' {finding: Coverage}, drawn as bars; findings that are never true are
            absent.
        num_positive: Finding to the number of scans whose reference states it.
    """
    findings = sorted(next(iter(recall.values())), key=lambda name: (-num_positive[name], name))
    shown = list(next(iter(panels.values())))
    height = 0.3 * len(shown) + 0.9, 0.3 * len(findings) + 0.9
    with _style():
        figure = Figure(figsize=(8.2, sum(height) + 0.7), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=height)
        upper, lower = (figure.add_subfigure(rows[i]) for i in (0, 1))
        row_of_axes = upper.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (metric, estimates) in zip(row_of_axes, panels.items(), strict=True):
            _dots(axes, shown, estimates)
            axes.set_title(metric, fontsize=9)
        for axes in row_of_axes[1:]:
            axes.set_xlim(-0.02, 1.02)
        axes = lower.subplots()
        for (view, estimates), offset, colour in zip(
            recall.items(), (-0.19, 0.19), (BLUE, ORANGE), strict=True
        ):
            _bars(axes, findings, estimates, offset, colour, view)
        _name_findings(axes, findings, num_positive)
        axes.set_xlabel("Coverage with 95 % interval (in brackets: positive scans)")
        lower.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.suptitle(title, fontsize=9.5, fontweight="bold", x=0.01, ha="left", wrap=True)
        figure.supxlabel(RESEARCH_USE, fontsize=7.5, color=GREY)
    return figure


def image_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content: PNG at 160 dots per inch, or SVG; no date inside."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with _style():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def write_figure(path: Path, figure: Figure) -> None:
    """Writes ``path`` as PNG or SVG by its suffix, atomically."""
    with atomic_write(path) as file:
        file.write(image_bytes(figure, "svg" if path.suffix == ".svg" else "png"))


def _style() -> AbstractContextManager[None]:
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


def _bars(
    axes: Axes,
    findings: list[str],
    estimates: Mapping[str, Estimate],
    offset: float,
    colour: str,
    label: str,
) -> None:
    shown = [(row + offset, estimates[f]) for row, f in enumerate(findings) if f in estimates]
    axes.barh(
        [row for row, _ in shown],
        [estimate[0] for _, estimate in shown],
        height=0.36,
        xerr=_whiskers([estimate for _, estimate in shown]),
        color=colour,
        error_kw={"ecolor": "black", "elinewidth": 0.8, "capsize": 1.5},
        label=label,
    )


def _name_findings(axes: Axes, findings: list[str], num_positive: Mapping[str, int]) -> None:
    axes.set_yticks(range(len(findings)), [f"{name}  ({num_positive[name]})" for name in findings])
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)


def _dots(axes: Axes, rows: list[str], estimates: Mapping[str, Estimate]) -> None:
    """One row each; the first is the measure of the others and is drawn as a line through them."""
    for row, name in enumerate(rows):
        if name in estimates:
            estimate = estimates[name]
            axes.errorbar(
                [estimate[0]],
                [row],
                xerr=_whiskers([estimate]),
                color=ORANGE if row else BLUE,
                marker="o",
                markersize=4.5,
                capsize=2,
                elinewidth=0.9,
            )
    if rows[0] in estimates:
        axes.axvline(estimates[rows[0]][0], color=BLUE, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _whiskers(estimates: list[Estimate]) -> list[list[float]]:
    """Distances to the bounds; a bound on the wrong side of its value, by rounding, counts as 0."""
    below = [max(value - low, 0.0) for value, low, _ in estimates]
    above = [max(high - value, 0.0) for value, _, high in estimates]
    return [below, above]
