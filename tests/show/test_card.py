from typing import Any

from ctscribe.measure.card_scores import FIT, METRICS
from ctscribe.show.card import card_markdown, headline

NOTHING = {"value": None, "low": None, "high": None}


def dependence(value: float, low: float, high: float) -> dict[str, Any]:
    return {"dependence": {"value": value, "low": low, "high": high}}


def test_the_verdict_follows_the_lower_bound() -> None:
    assert headline(dependence(0.3, 0.1, 0.5)).endswith(": the model looks at the scan.")
    assert "0.300 [0.100, 0.500]" in headline(dependence(0.3, 0.1, 0.5))
    assert "cannot be told" in headline(dependence(0.3, -0.1, 0.5))
    assert "cannot be told" in headline(dependence(0.0, 0.0, 0.0))
    assert "undefined" in headline({"dependence": NOTHING})


def small_card() -> dict[str, Any]:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    nothing_lost = {"coverage": NOTHING, "dependence": {"value": 0.1, "low": -0.1, "high": 0.3}}
    shown = {
        "real": {"coverage": metric},
        "noise": {"coverage": NOTHING, **dependence(0.3, 0.1, 0.5)},
        "other_patient": nothing_lost,
    }
    return {
        "weights_sha256": "ab" * 32,
        "split": "test",
        "n": {"scans": 5, "patients": 4, "resamples": 100, "seed": 0},
        **dependence(0.3, 0.1, 0.5),
        "views": shown,
        "per_finding": [
            {
                "finding": finding,
                "positives": positives,
                "views": {view: {"coverage": scores["coverage"]} for view, scores in shown.items()},
            }
            for finding, positives in (("Emphysema", 1), ("Lung nodule", 3))
        ],
        "definitions": {
            "views": {view: f"what {view} is" for view in shown},
            "metrics": METRICS,
            "labels": "rules",
        },
    }


def test_undefined_scores_are_dashes_and_frequent_findings_come_first() -> None:
    page = card_markdown(small_card())
    assert "5 scans of 4 patients" in page
    assert page.index("Lung nodule (3)") < page.index("Emphysema (1)")
    row = next(line for line in page.splitlines() if line.startswith("| Emphysema (1)"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["0.500 [0.400, 0.600]", "–"]
    # and it says in words what matters
    assert "Shown noise: the findings written fit the reference worse." in page
    assert "Shown another patient's scan: no loss can be shown." in page


def test_a_card_without_the_model_has_no_table_of_the_true_report() -> None:
    card = small_card()
    assert "The true report, given each view" not in card_markdown(card)
    fit = {name: {"value": 2.4e8, "low": 1e7, "high": 9e8} for name in FIT}
    for scores in card["views"].values():
        scores |= fit
    for row in card["per_finding"]:
        row["views"]["other_patient"] |= fit
    page = card_markdown(card)
    assert "The true report, given each view" in page
    assert "2.40e8 [1.00e7, 9.00e8]" in page
