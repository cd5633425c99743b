"""Cards of several systems side by side: one table of verdicts, one of views, and one figure.

In: what `measure.card_compare` returns. Out: ``cards.md``, ``.tex``, ``.html`` and ``.png``.
"""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.figures import (
    GREY,
    MARKERS,
    new_figure,
    style,
    whiskers,
    write_figure,
)
from ctscribe.base.files import write_text
from ctscribe.measure.card_scores import FEWEST_PATIENTS
from ctscribe.measure.card_views import GATED, KEPT, VIEWS
from ctscribe.show.card import VIEW_TITLES
from ctscribe.show.score_figures import captioned
from ctscribe.show.scoreboard import scoreboard_page
from ctscribe.show.tables import (
    Table,
    estimate_of,
    to_latex,
    to_markdown,
    value_of,
)

VERDICTS = {
    "too few": f"fewer than {FEWEST_PATIENTS} patients with a finding",
    "undefined": "undefined",
    "open": "not shown to look",
    "looks so far": "looks, but not all views were shown",
    "looks": "looks",
}
"""A verdict within a table."""

_TITLE = "Do they look? Dependence on the image"


def write_cards(folder: Path, comparison: Mapping[str, Any]) -> list[Path]:
    """Writes the tables as Markdown, LaTeX and a page, and the figure; returns their paths."""
    tables, figure = cards_tables(comparison), cards_figure(comparison)
    paths = [folder / f"cards{suffix}" for suffix in (".md", ".tex", ".html", ".png")]
    texts = (
        "\n".join([f"# {_TITLE}\n", *map(to_markdown, tables), f"![{_TITLE}](cards.png)\n"]),
        "\n".join(map(to_latex, tables)),
    )
    for path, text in zip(paths, texts, strict=False):
        write_text(path, text)
    write_figure(paths[-1], figure)
    facts = [f"{len(comparison['systems'])} systems"]
    write_text(paths[2], scoreboard_page(_TITLE, facts, tables, [captioned(_TITLE, figure)], []))
    return paths


def cards_tables(comparison: Mapping[str, Any]) -> list[Table]:
    """Each system's verdict and what it rests on; then its dependence on every view."""
    systems, differences = comparison["systems"], comparison["differences"]
    n = next(iter(systems.values()))["n"]
    verdicts = [
        (
            name,
            VERDICTS[card["verdict"]],
            value_of(card["dependence"]),
            VIEW_TITLES[card["dependence"]["against"]],
            value_of(differences.get(name)),
            value_of(card["views"]["real"]["f1"]),
            value_of(card["views"].get(KEPT, {}).get("label_agreement")),
        )
        for name, card in systems.items()
    ]
    views = [view for view in VIEWS if any(view in each["views"] for each in systems.values())]
    by_view = [
        (name, *(value_of(_dependence(card, view)) for view in views[1:]))
        for name, card in systems.items()
    ]
    base = comparison["base"]
    return [
        Table(
            "Verdicts",
            (
                *("System", "Verdict", "Dependence", "Least when shown", f"Minus {base}"),
                *("F1 given the scan", "Agreement on another's grid"),
            ),
            tuple(verdicts),
            (
                f"{n['scans']} scans of {n['patients']} patients, of whom "
                f"{n['patients_with_findings']} have a finding; in brackets the 95 % interval over "
                "patients, the same left out for all.",
                "Dependence is the least over all views that a verdict rests on: "
                f"{', '.join(VIEW_TITLES[view] for view in GATED)}.",
                f"Minus {base}: difference of dependence on the same patients; its interval says "
                "whether it holds.",
                f"Findings read by: {comparison['labels']}.",
                RESEARCH_USE,
            ),
        ),
        Table(
            "Dependence on each view",
            ("System", *(VIEW_TITLES[view] for view in views[1:])),
            tuple(by_view),
            ("0: the findings are as right as from the scan itself; 1: all is lost.",),
        ),
    ]


def cards_figure(comparison: Mapping[str, Any]) -> Figure:
    """Views down, dependence across, one mark per system."""
    systems = comparison["systems"]
    views = [view for view in VIEWS if any(_dependence(c, view) for c in systems.values())]
    figure, (axes,) = new_figure(6.4, 1.4 + 0.12 * len(views) * (2 + len(systems)))
    with style():
        for number, ((name, card), (colour, shape)) in enumerate(
            zip(systems.items(), cycle(MARKERS), strict=False)
        ):
            shift = 0.6 * ((number + 0.5) / len(systems) - 0.5)
            shown = {
                row + shift: estimate
                for row, view in enumerate(views)
                if (estimate := estimate_of(_dependence(card, view)))
            }
            axes.errorbar(
                [estimate[0] for estimate in shown.values()],
                [*shown],
                xerr=whiskers([*shown.values()]),
                color=colour,
                marker=shape,
                markersize=4.5,
                linestyle="none",
                capsize=2,
                elinewidth=0.9,
                label=name,
            )
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.set_yticks(range(len(views)), [VIEW_TITLES[view] for view in views])
        axes.set_ylim(len(views) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Dependence with 95 % interval")
        figure.legend(loc="outside upper right", ncols=len(MARKERS), frameon=False)
        figure.supxlabel(RESEARCH_USE, fontsize=7.5, color=GREY)
    return figure


def _dependence(card: Mapping[str, Any], view: str) -> Mapping[str, Any] | None:
    """Of one view; None where it was not shown, and of the scan itself."""
    found: Mapping[str, Any] | None = card["views"].get(view, {}).get("dependence")
    return found
