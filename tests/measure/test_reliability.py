import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctscribe.measure.reliability import (
    Claims,
    draw_reliability,
    expected_calibration_error,
    reliability,
    risk_coverage,
)

P = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1])
TRUE = np.array([True, True, True, False, False, True])


def test_ece_by_hand() -> None:
    # four cases at 0.9 of which 0.75 are true, two at 0.1 of which a half is
    assert expected_calibration_error(P, TRUE) == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    assert expected_calibration_error(P[:4], TRUE[:4]) == pytest.approx(0.15)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_risk_coverage_by_hand() -> None:
    probability = np.array([0.99, 0.6, 0.2, 0.55])
    coverage, risk = risk_coverage(probability, np.array([True, False, False, True]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])


def test_a_claim_that_comes_true_as_often_as_it_says_has_no_error() -> None:
    draw = np.random.default_rng(0)
    probability = draw.random(50_000)
    truth = draw.random(50_000) < probability
    patients = tuple(str(n // 50) for n in range(50_000))
    found = reliability(Claims(probability, truth, patients))
    assert found["ece"]["value"] < 0.01
    assert found["ece"]["low"] <= found["ece"]["high"] < 0.02
    assert found["risk_coverage"][-1][1] == pytest.approx(0.25, abs=0.01)
    assert found["brier"] == pytest.approx(1 / 6, abs=0.01)
    assert sum(each["cases"] for each in found["bins"]) == 50_000
    json.dumps(found, allow_nan=False)


def test_it_is_drawn(tmp_path: Path) -> None:
    found = reliability(Claims(P, TRUE, tuple("aabbcc")))
    draw_reliability({"findings": found}, tmp_path / "reliability.png")
    with Image.open(tmp_path / "reliability.png") as image:
        assert image.size == (1440, 672)
