import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType
from PIL import Image

from ctscribe.base.figures import MEANINGS, darken, image_bytes, write_figure
from ctscribe.learn.train.run_log import MetricsRow, loss_figure
from ctscribe.show import score_figures
from ctscribe.show.card import card_figure
from ctscribe.show.score_figures import (
    beta_curves,
    beta_figure,
    likeness_figure,
    nodule_sizes,
    per_finding_figure,
    strata_figure,
)
from ctscribe.show.tables import Table, Value


@pytest.fixture
def bars() -> Figure:
    return per_finding_figure(
        recall={"Emphysema": (0.5, 0.3, 0.7), "Lung nodule": (0.8, 0.7, 0.9)},
        precision={"Lung nodule": (0.6, 0.5, 0.7)},
        num_positive={"Emphysema": 4, "Lung nodule": 20},
    )


def test_the_most_frequent_finding_is_on_top(bars: Figure) -> None:
    (axes,) = bars.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Lung nodule  (20)", "Emphysema  (4)"]
    assert axes.yaxis_inverted()
    # a finding never predicted has no precision bar
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert sorted(widths) == [0.5, 0.6, 0.8]


def test_the_beta_curve_names_its_axes() -> None:
    figure = beta_figure({"Coverage": {0.1: (0.6, 0.5, 0.7), 0.0: (0.5, 0.4, 0.6)}}, "gauss")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "β, weight of the gauss negatives"
    assert "95 %" in axes.get_ylabel()
    assert list(axes.get_xticks()) == [0.0, 0.1]


def test_images_are_of_the_suffixs_format_and_reproducible(bars: Figure, tmp_path: Path) -> None:
    assert image_bytes(bars, "png") == image_bytes(bars, "png")
    assert image_bytes(bars, "svg") == image_bytes(bars, "svg")
    assert Image.open(io.BytesIO(image_bytes(bars, "png"))).width == round(6.2 * 160)
    write_figure(tmp_path / "bars.svg", bars)
    write_figure(tmp_path / "bars.png", bars)
    assert b"<svg" in (tmp_path / "bars.svg").read_bytes()
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def colours_of(figure: Figure) -> dict[str, str]:
    """Label to colour, over bars, lines and the handles of error bars."""
    told = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            first = next(iter(handle)) if isinstance(handle, Container) else handle
            if isinstance(first, Rectangle):
                told[label] = to_hex(first.get_facecolor())
            if isinstance(first, Line2D):
                told[label] = to_hex(first.get_color())
    return told


def test_a_colour_has_one_meaning_in_all_figures(bars: Figure) -> None:
    point = (0.5, 0.4, 0.6)
    strata = strata_figure({name: {"< 6 mm": point} for name in ("Origin", "Ours")}, {"< 6 mm": 1})
    assert strata is not None
    metrics = beta_figure({"Precision": {0.1: point}, "Coverage": {0.1: point}}, "gauss")
    row = {"step": 1, "epoch": 0, "learning_rate": 1, "grad_norm": 1, "positive_ce": 1}
    row |= {"negative_ce": 2, "gap": 1, "share_capped": 0, "share_skipped": 0}
    figures = (
        *(bars, metrics, strata, loss_figure([MetricsRow.model_validate(row)])),
        likeness_figure({name: {"Self-BLEU-4": 0.3} for name in ("References", "Ours", "Origin")}),
    )
    meaning: dict[str, set[str]] = {}
    for figure in figures:
        for label, colour in colours_of(figure).items():
            meaning.setdefault(colour, set()).add("Coverage" if label == "Recall" else label)
    assert sorted(map(sorted, meaning.values())) == [
        ["Coverage"],
        ["Origin"],
        ["Ours"],
        ["Precision"],
        ["References"],
        ["negative, training"],
        ["own scan, training"],
    ]


def test_meanings_differ_in_colour_and_stand_out_on_both_grounds() -> None:
    colours = [colour for colour, _ in MEANINGS.values()]
    assert len(set(colours)) == len(colours)
    figure = Figure(figsize=(2, 2))
    axes = figure.subplots()
    lines = [axes.plot([0, 1], [0, 1], color=colour)[0] for colour in colours]

    def contrasts() -> list[float]:
        ground = luminance(figure.get_facecolor())
        pairs = [sorted((ground, luminance(line.get_color()))) for line in lines]
        return [(high + 0.05) / (low + 0.05) for low, high in pairs]

    assert min(contrasts()) > 3
    assert luminance(axes.get_facecolor()) == 1
    darken(figure)
    assert min(contrasts()) > 3
    assert luminance(axes.get_facecolor()) < 0.02
    assert len({to_hex(line.get_color()) for line in lines}) == len(lines)


def luminance(colour: ColorType) -> float:
    """Relative, as WCAG has it."""
    values = to_rgb(colour)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in values]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def test_a_dark_figure_is_dark_and_its_words_are_light(bars: Figure) -> None:
    darken(bars)
    picture = np.asarray(Image.open(io.BytesIO(image_bytes(bars, "png"))).convert("L"))
    assert picture[0, 0] < 40
    assert np.median(picture) < 60
    (axes,) = bars.axes
    assert all(luminance(label.get_color()) > 0.7 for label in axes.get_yticklabels())
    assert luminance(axes.xaxis.label.get_color()) > 0.7


def test_the_card_draws_each_view_as_a_row_and_two_views_as_bars() -> None:
    estimate = (0.5, 0.4, 0.6)
    figure = card_figure(
        "Dependence",
        {
            "Cross entropy": {"The scan itself": estimate, "Blank": estimate},
            "BLEU-4": {"Blank": estimate},
        },
        {"The scan itself": {"Emphysema": estimate}, "Blank": {"Emphysema": estimate}},
        {"Emphysema": 3},
    )
    first, second, bars = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["Cross entropy", "BLEU-4"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["The scan itself", "Blank"]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["Emphysema  (3)"]
    assert "Research use only" in figure.get_supxlabel()
    assert image_bytes(figure, "png").startswith(b"\x89PNG")


def test_strata_without_a_score_are_left_out() -> None:
    curves = {"Origin": {"< 6 mm": (0.5, 0.4, 0.6)}, "Ours": {}}
    figure = strata_figure(curves, {"< 6 mm": 7, "> 30 mm": 2})
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["< 6 mm\n(7)"]
    assert strata_figure({"Origin": {}}, {"< 6 mm": 7}) is None


def test_likeness_puts_the_references_first_and_in_grey() -> None:
    names = ("Self-BLEU-4", "Repeated reports")
    likeness = {"References": (0.3, 0.0), "Model": (0.9, 0.5)}
    figure = likeness_figure(
        {who: dict(zip(names, values, strict=True)) for who, values in likeness.items()}
    )
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert widths == [0.3, 0.0, 0.9, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(names)


def test_a_panel_beyond_one_is_logarithmic_where_values_spread() -> None:
    def scale(largest: float) -> str:
        estimates = {"The scan itself": (0.4, 0.3, 0.5), "Noise": (largest, largest, largest)}
        bars = {view: {"Emphysema": (0.5, 0.4, 0.6)} for view in estimates}
        figure = card_figure("", {"Cross entropy": estimates}, bars, {"Emphysema": 1})
        return str(figure.axes[0].get_xscale())

    assert scale(19.0) == "log"
    assert scale(2.0) == "linear"


def row(grouping: str, stratum: str, value: float | None) -> dict[str, Any]:
    score = {"value": value, "low": value, "high": value}
    return {"grouping": grouping, "stratum": stratum, "scans": 3, "nodule_coverage": score}


def test_the_curve_over_beta_is_read_from_table_2() -> None:
    cell = Value(0.5, 0.4, 0.6)
    table = Table(
        "Table 2",
        ("Weight", "BLEU-1", "Coverage", "Precision"),
        (
            ("β = 0", cell, cell, "–"),
            ("β = 0.1", cell, Value(0.7, 0.6, 0.8), "0.500"),
            ("Constant report", cell, cell, cell),
        ),
    )
    assert beta_curves(table, (0.1, 0.0)) == {
        "Coverage": {0.0: (0.5, 0.4, 0.6), 0.1: (0.7, 0.6, 0.8)}
    }


def test_nodule_sizes_are_in_order_and_told_from_what_is_undefined() -> None:
    strata = [
        row("nodule size", "> 30 mm", 0.9),
        row("nodule size", "none", None),
        row("nodule size", "6–8 mm", None),
        row("nodule size", "< 6 mm", 0.3),
        row("tiny nodule", "< 3 mm", 0.1),
        row("sex", "F", 0.5),
    ]
    sizes = nodule_sizes({"strata": strata})
    assert list(sizes) == ["< 3 mm", "< 6 mm", "6–8 mm", "> 30 mm"]
    assert [size for size, (_, found) in sizes.items() if found is None] == ["6–8 mm"]


def test_a_findings_positives_are_those_of_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mapping[str, int]] = []

    def draw(*asked: Mapping[str, int]) -> Figure:
        drawn.append(asked[2])
        return Figure()

    monkeypatch.setattr(score_figures, "per_finding_figure", draw)
    row = {"finding": "Lung nodule", "true_positives": 3, "false_negatives": 2}
    unknown = {"value": None, "low": None, "high": None}
    scores = {"per_finding": [row | {"coverage": unknown, "precision": unknown}]}
    score_figures._findings("Model", scores, "")
    assert drawn == [{"Lung nodule": 5}]
