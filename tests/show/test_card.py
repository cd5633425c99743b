from typing import Any

from ctscribe.measure.card_scores import FIT, METRICS
from ctscribe.measure.card_views import KEPT
from ctscribe.show.card import card_markdown, headline

NOTHING = {"value": None, "low": None, "high": None}


def dependence(value: float, low: float, high: float) -> dict[str, Any]:
    return {"dependence": {"value": value, "low": low, "high": high, "against": "noise"}}


def told(verdict: str, found: dict[str, Any]) -> str:
    return headline({"verdict": verdict, "n": {"patients_with_findings": 12}, **found})


def test_the_headline_is_worded_by_the_verdict() -> None:
    some = dependence(0.3, 0.1, 0.5)
    assert told("looks", some).endswith("least when shown noise: the model looks at the scan.")
    assert "0.300 [0.100, 0.500]" in told("looks", some)
    assert "as far as the views that were shown can tell" in told("looks so far", some)
    assert "cannot be told from one that does not look" in told("open", some)
    assert "undefined" in told("undefined", {"dependence": NOTHING})
    few = told("too few", {"dependence": NOTHING})
    assert few == "Too few patients for a verdict: 12 have a finding, and 40 are needed."


def small_card() -> dict[str, Any]:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    nothing_lost = {"coverage": NOTHING, "dependence": {"value": 0.1, "low": -0.1, "high": 0.3}}
    kept = {"coverage": metric, "label_agreement": metric, **dependence(0.3, 0.1, 0.5)}
    shown = {
        "real": {"coverage": metric},
        "noise": {"coverage": NOTHING, **dependence(0.3, 0.1, 0.5)},
        KEPT: kept,
        "other_patient": nothing_lost,
    }
    return {
        "weights_sha256": "ab" * 32,
        "split": "test",
        "n": {
            **{"scans": 5, "patients": 4, "patients_with_findings": 4},
            **{"resamples": 100, "seed": 0},
        },
        "verdict": "looks so far",
        "not_shown": ["moved", "texture"],
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
    assert "agree with those of the scan itself to 0.500 [0.400, 0.600]" in page
    assert "Not shown: its voxels in another order, a phantom's chest under its noise." in page


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
