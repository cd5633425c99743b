from typing import Any

from ctscribe.show.score_figures import beta_curves, nodule_sizes
from ctscribe.show.tables import Table, Value


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
