from typing import Any

from ctscribe.card.write import card_markdown, headline

NOTHING = {"value": None, "low": None, "high": None}


def dependence(value: float, low: float, high: float) -> dict[str, Any]:
    return {"dependence": {"value": value, "low": low, "high": high}}


def test_the_verdict_follows_the_lower_bound() -> None:
    assert headline(dependence(0.3, 0.1, 0.5)).endswith(": the model looks at the scan.")
    assert "0.300 [0.100, 0.500]" in headline(dependence(0.3, 0.1, 0.5))
    assert "cannot be told" in headline(dependence(0.3, -0.1, 0.5))
    assert "cannot be told" in headline(dependence(0.0, 0.0, 0.0))
    assert "undefined" in headline({"dependence": NOTHING})


def test_undefined_scores_are_dashes_and_frequent_findings_come_first() -> None:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    card = {
        "weights_sha256": "ab" * 32,
        "split": "test",
        "n": {"scans": 5, "patients": 4, "resamples": 100, "seed": 0},
        **dependence(0.3, 0.1, 0.5),
        "views": {"real": {"coverage": metric}, "noise": {"coverage": NOTHING}},
        "per_finding": [
            {
                "finding": finding,
                "positives": positives,
                "views": {"real": {"coverage": metric}, "noise": {"coverage": NOTHING}},
            }
            for finding, positives in (("Emphysema", 1), ("Lung nodule", 3))
        ],
    }
    page = card_markdown(card)
    assert "5 scans of 4 patients" in page
    assert page.index("Lung nodule (3)") < page.index("Emphysema (1)")
    row = next(line for line in page.splitlines() if line.startswith("| Emphysema (1)"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["0.500 [0.400, 0.600]", "–"]
