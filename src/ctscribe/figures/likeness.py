"""How alike reports are: the reference reports beside the written ones (paper, Figure 2)."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ctscribe.figures.style import GREY, MARKERS, style


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
