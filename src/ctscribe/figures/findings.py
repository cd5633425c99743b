"""Bars of every finding."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ctscribe.figures.style import BLUE, ORANGE, Estimate, bars, name_findings, style


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
