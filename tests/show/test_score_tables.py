import csv
import io
import re
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctscribe.base.about import RESEARCH_USE
from ctscribe.show.experiment_tables import METRICS, table_1, table_2
from ctscribe.show.score_tables import BASELINES
from ctscribe.show.tables import Table, Value, to_csv, to_latex, to_markdown


def estimate(metric: str, value: float) -> dict[str, Any]:
    interval = {"low": value - 0.05, "high": value + 0.05}
    return {"value": value, **interval, "signature": f"{metric}|profile:raw"}


def scores(value: float, blind: float = 0.2, gap: float | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "model": {metric: estimate(metric, value) for metric in METRICS},
        "baselines": {
            name: {metric: estimate(metric, blind) for metric in METRICS} for name in BASELINES
        },
        "n": {"scans": 40, "patients": 31, "seed": 0},
    }
    if gap is not None:
        result["gap"] = {"value": gap, "low": gap - 0.01, "high": gap + 0.01}
    return result


def column(table: Table, title: str) -> list[Value | str]:
    return [row[table.columns.index(title)] for row in table.rows]


def test_a_cell_is_a_value_with_its_interval() -> None:
    assert str(Value(0.612, 0.5714, 0.6549)) == "0.612 [0.571, 0.655]"
    assert str(Value(-0.01, -0.02, 0.004, "†")) == "-0.010 [-0.020, 0.004]†"


def test_table_1_has_variants_then_baselines_and_the_gap() -> None:
    table = table_1({"Origin": [scores(0.5, gap=0.001)], "Gauss": [scores(0.6, gap=0.2)]}, beta=0.1)
    assert column(table, "System") == ["Origin", "Gauss", *BASELINES.values()]
    assert table.rules == (2,)
    assert column(table, "BLEU-1")[0] == Value(0.5, 0.45, 0.55, "†")
    assert [str(cell) for cell in column(table, "Mismatch gap")[:3]] == [
        "0.001 [-0.009, 0.011]",
        "0.200 [0.190, 0.210]",
        "–",
    ]
    assert table.notes[-1] == RESEARCH_USE
    assert any("40 scans of 31 patients" in note for note in table.notes)
    assert f"{', '.join(METRICS.values())}: profile:raw" in table.notes


def test_the_mark_wants_the_whole_interval_above_the_strongest_blind_baseline() -> None:
    def marks(result: dict[str, Any], title: str = "Coverage") -> str:
        cell = column(table_1({"Origin": [result]}, beta=0.1), title)[0]
        assert isinstance(cell, Value)
        return cell.mark

    assert marks(scores(0.51, blind=0.4)) == "†"
    assert marks(scores(0.49, blind=0.4)) == ""
    oracle = scores(0.6)  # which need not be beaten
    oracle["baselines"]["label_retrieval"]["coverage"] = estimate("coverage", 0.95)
    assert marks(oracle) == "†"


def test_each_metric_has_its_own_strongest_constant() -> None:
    result = scores(0.6)
    for name, metric in (("commonest_18", "coverage"), ("best_bleu_4", "bleu_4")):
        result["baselines"][name] = {key: estimate(key, 0.1) for key in METRICS}
        result["baselines"][name][metric] = estimate(metric, 0.9)
    table = table_1({"Origin": [result]}, beta=0.1)
    for title, constant in (
        ("Coverage", "Constant: the 18 commonest findings"),
        ("BLEU-4", "Constant: the report best for BLEU-4"),
    ):
        cells = dict(zip(column(table, "System"), column(table, title), strict=True))
        assert str(cells[constant]).endswith("‡")
        assert str(cells["Origin"]).endswith("]")  # not above its bar
    assert str(column(table, "Precision")[0]).endswith("†")


def test_with_too_few_patients_the_table_says_so_and_marks_nothing() -> None:
    few = {"low": None, "high": None, "too_few_patients": 7}
    result = scores(0.9)
    result["model"]["coverage"] |= few
    for name in BASELINES:
        result["baselines"][name]["precision"] |= few
    table = table_1({"Origin": [result]}, beta=0.1)
    assert str(column(table, "Coverage")[0]) == "0.900 [too few patients]"
    assert str(column(table, "Precision")[0]) == "0.900 [0.850, 0.950]"
    assert "0.900000,,," in to_csv(table)
    assert "[too few patients]" in to_latex(table)


def test_seeds_are_averaged_and_their_range_is_told() -> None:
    table = table_2({0.1: [scores(0.4), scores(0.6)], 0.0: [scores(0.5)]}, "gauss")
    assert column(table, "Weight")[:2] == ["β = 0", "β = 0.1"]
    mean = column(table, "Precision")[1]
    assert isinstance(mean, Value)
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.5, 0.45, 0.55))
    ranges = [note for note in table.notes if "range over seeds" in note]
    assert len(ranges) == 1
    assert ranges[0].startswith("β = 0.1:")
    assert "Coverage 0.400 to 0.600" in ranges[0]


def test_an_undefined_score_is_a_dash_and_marks_nothing() -> None:
    result = scores(0.9)
    undefined = {"value": None, "low": None, "high": None, "signature": "coverage|"}
    result["baselines"]["all_normal"]["coverage"] = undefined
    result["model"]["precision"] |= {"low": None, "high": None}
    table = table_1({"Origin": [result]}, beta=0.1)
    assert column(table, "Coverage")[:3] == [Value(0.9, 0.85, 0.9500000000000001), ANY, "–"]
    assert column(table, "Precision")[0] == "0.900"
    assert "Mismatch gap" not in table.columns


def test_markdown_columns_align_and_pipes_cannot_break_a_row() -> None:
    table = Table(
        "T", ("a|b", "n"), (("x<i>", Value(1.0, 0.0, 2.0)), ("longer name", "–")), ("p|q",)
    )
    title, _, *lines, _, note = to_markdown(table).splitlines()
    assert title == "## T"
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith(r"| a\|b")
    assert lines[1].endswith("-: |")
    assert "&lt;i>" in lines[2]
    assert note == "- p|q"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0")))
@example("-0")
def test_csv_texts_never_start_a_formula_and_survive_the_round_trip(name: str) -> None:
    table = Table("T", ("System", "Coverage"), ((name, Value(-0.5, -1.0, 0.0)), ("", "–")))
    header, first, second = csv.reader(io.StringIO(to_csv(table), newline=""))
    assert header == ["System", "Coverage", "Coverage low", "Coverage high"]
    is_number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", first[0])
    assert is_number or first[0][:1] not in ("=", "+", "-", "@", "\t", "\n")
    assert first[0].removeprefix("'") == name.removeprefix("'")
    assert [float(field) for field in first[1:]] == [-0.5, -1, 0]
    assert second == ["", "–", "", ""]


def test_latex_is_escaped_and_groups_are_ruled() -> None:
    table = Table(
        "50 % & more", ("S_1", "β"), (("a#b", Value(-0.1, -0.2, 0.0)), ("c", "–")), ("n|m",), (1,)
    )
    text = to_latex(table)
    assert r"\caption{50 \% \& more}" in text
    assert r"S\_1 & $\beta$ \\" in text
    assert r"a\#b & $-$0.100 {\scriptsize [$-$0.200, 0.000]} \\" in text
    assert text.count(r"\midrule") == 2
    assert r"n\textbar{}m" in text
    for environment in ("table*", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
