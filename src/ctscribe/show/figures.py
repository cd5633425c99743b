"""The image-dependence card's figure."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctscribe import RESEARCH_USE
from ctscribe.base.figures import (
    BLUE,
    GREY,
    MARKERS,
    ORANGE,
    Estimate,
    bars,
    image_bytes,
    line,
    name_findings,
    style,
    whiskers,
    write_figure,
)


def beta_figure(curves: Mapping[str, Mapping[float, Estimate]], strategy: str) -> Figure:
    """Scores over the weight of the negatives, the picture of Table 2.

    Args:
        curves: Metric to {β: estimate}, up to four metrics.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for (metric, curve), look in zip(curves.items(), MARKERS, strict=False):
            betas = sorted(curve)
            line(axes, betas, [curve[beta] for beta in betas], look, metric)
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
    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        shift = 0.12
        for number, (system, look) in enumerate(zip(curves, MARKERS, strict=False)):
            curve, beside = curves[system], shift * (number - (len(curves) - 1) / 2)
            shown = [place for place, name in enumerate(strata) if name in curve]
            estimates = [curve[strata[place]] for place in shown]
            line(axes, [place + beside for place in shown], estimates, look, system)
        axes.set_xticks(range(len(strata)), [f"{name}\n({num_scans[name]})" for name in strata])
        axes.set_xlim(-0.5, len(strata) - 0.5)
        axes.set_xlabel("Largest nodule (in brackets: scans)")
        axes.set_ylabel("Coverage, with 95 % interval")
        axes.set_ylim(0, 1.02)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


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
    with style():
        figure = Figure(figsize=(6.2, 0.9 + 0.32 * len(findings)), layout="constrained")
        axes = figure.subplots()
        bars(axes, findings, recall, -0.19, BLUE, "Recall")
        bars(axes, findings, precision, 0.19, ORANGE, "Precision")
        name_findings(axes, findings, num_positive)
        axes.set_xlabel("Share of scans with 95 % interval (in brackets: positive scans)")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def likeness_figure(sets: Mapping[str, Mapping[str, float]]) -> Figure:
    """Measures of likeness in [0, 1] as bars, one row of bars per set of reports.

    Args:
        sets: Set of reports to {measure: value}; every set has the measures of the first, up to
            three sets beside the references, which come first and are drawn in grey.
    """
    measures = list(next(iter(sets.values())))
    height = 0.8 / len(sets)
    colours = [GREY, *(colour for colour, _ in MARKERS[:3])]
    with style():
        figure = Figure(figsize=(6.2, 1.1 + 0.3 * len(measures) * len(sets)), layout="constrained")
        axes = figure.subplots()
        for number, ((title, values), colour) in enumerate(
            zip(sets.items(), colours, strict=False)
        ):
            places = [row + height * (number - (len(sets) - 1) / 2) for row in range(len(measures))]
            drawn = axes.barh(
                places, [values[name] for name in measures], 0.9 * height, color=colour, label=title
            )
            axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
        axes.set_yticks(range(len(measures)), measures)
        axes.set_ylim(len(measures) - 0.5, -0.5)
        axes.set_xlim(0, 1.08)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("0: all differ, 1: all are the same")
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


__all__ = [
    "Estimate",
    "beta_figure",
    "card_figure",
    "image_bytes",
    "likeness_figure",
    "per_finding_figure",
    "strata_figure",
    "write_figure",
]
