import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ctscribe.base.figures import image_bytes, write_figure
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
