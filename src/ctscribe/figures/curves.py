"""Scores over the weight of the negatives, and over groups of scans."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ctscribe.figures.style import MARKERS, Estimate, line, style


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
