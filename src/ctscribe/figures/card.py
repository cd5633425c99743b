"""The image-dependence card's figure."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctscribe import RESEARCH_USE
from ctscribe.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    Estimate,
    bars,
    name_findings,
    style,
    whiskers,
)


def card_figure(
    title: str,
    panels: Mapping[str, Mapping[str, Estimate]],
    recall: Mapping[str, Mapping[str, Estimate]],
    num_positive: Mapping[str, int],
) -> Figure:
    """What a model makes of its scans and of what is shown instead of them.

    Args:
        title: Above everything.
        panels: Metric to {what was shown: estimate}, one panel each. The first has every view
            and gives their order. One with a value beyond 1 has a scale of its own,
            logarithmic where a tenth of the largest value is larger than the smallest.
        recall: Two views' {finding: Coverage}, drawn as bars; findings that are never true are
            absent.
        num_positive: Finding to the number of scans whose reference states it.
    """
    findings = sorted(next(iter(recall.values())), key=lambda name: (-num_positive[name], name))
    shown = list(next(iter(panels.values())))
    height = 0.3 * len(shown) + 0.9, 0.3 * len(findings) + 0.9
    with style():
        figure = Figure(figsize=(8.2, sum(height) + 0.7), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=height)
        upper, lower = (figure.add_subfigure(rows[i]) for i in (0, 1))
        row_of_axes = upper.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (metric, estimates) in zip(row_of_axes, panels.items(), strict=True):
            _dots(axes, shown, estimates)
            axes.set_title(metric, fontsize=9)
        for axes, estimates in zip(row_of_axes, panels.values(), strict=True):
            if all(0 <= estimate[0] <= 1 for estimate in estimates.values()):
                axes.set_xlim(-0.02, 1.02)
            else:
                _spread(axes, estimates)
        axes = lower.subplots()
        for (view, estimates), offset, colour in zip(
            recall.items(), (-0.19, 0.19), (BLUE, ORANGE), strict=True
        ):
            bars(axes, findings, estimates, offset, colour, view)
        name_findings(axes, findings, num_positive)
        axes.set_xlabel("Coverage with 95 % interval (in brackets: positive scans)")
        lower.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.suptitle(title, fontsize=9.5, fontweight="bold", x=0.01, ha="left", wrap=True)
        figure.supxlabel(RESEARCH_USE, fontsize=7.5, color=GREY)
    return figure


def _spread(axes: Axes, estimates: Mapping[str, Estimate]) -> None:
    low = min(estimate[1] for estimate in estimates.values())
    high = max(estimate[2] for estimate in estimates.values())
    if 0 < low < 0.1 * high:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")


def _dots(axes: Axes, rows: list[str], estimates: Mapping[str, Estimate]) -> None:
    """One row each; the first is the measure of the others and is drawn as a line through them."""
    for row, name in enumerate(rows):
        if name in estimates:
            estimate = estimates[name]
            axes.errorbar(
                [estimate[0]],
                [row],
                xerr=whiskers([estimate]),
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
