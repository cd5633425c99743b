import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.runs import recipe_of, weights_sha256
from ctscribe.measure.calibrate import calibrate
from ctscribe.show.lines import calibration_lines
from ctscribe.text.labeler import label_report
from ctscribe.write.calibration import (
    Calibration,
    is_true,
    read_calibration,
    sentence_confidences,
    sentence_log_odds,
)
from ctscribe.write.sentences import ReadSentence
from ctscribe.write.template import generate_template

MakeRun = Callable[[bool], Path]
NODULE = ReadSentence("findings", "A nodule.", (9,), ())
DENIED = ReadSentence("findings", "No nodule or effusion.", (), (9, 12))
STOCK = ReadSentence("findings", "The trachea is open.", (), ())


def test_a_run_is_calibrated_and_then_states_its_labels(make_run: MakeRun, prepared: Path) -> None:
    run = make_run(True)
    recipe = recipe_of(run)
    with pytest.raises(CtscribeError, match="as calibrate writes it"):
        generate_template(run, prepared, recipe, "test", run / "template.jsonl")
    told: list[tuple[int, int]] = []
    found = calibrate(run, prepared, recipe, "test", progress=lambda *done: told.append(done))
    assert told[-1] == (100, 100)
    assert json.loads((run / "calibration.json").read_text()) == found
    assert (run / "reliability.png").stat().st_size > 1000
    # random queries know nothing; calibrated, they say how often a finding is there: about half
    assert found["test"]["findings"]["cases"] == 12 * 18
    assert found["test"]["findings"]["brier"] < 0.3
    assert found["abstention"]["good studies"]["refused"] == 0
    assert found["abstention"]["noise"]["value"] == 1
    lines = " ".join(calibration_lines(found, "test").split())
    assert "| findings, calibrated | 216 |" in lines
    calibration = read_calibration(run, weights_sha256(run / "best"))
    assert calibration is not None
    rows = generate_template(run, prepared, recipe, "test", run / "template.jsonl")
    assert len(rows) == 12
    assert all(sum(label_report(f"{r.findings} {r.impression}")) < 19 for r in rows)


def test_a_run_without_queries_is_refused(make_run: MakeRun, prepared: Path) -> None:
    run = make_run(False)
    with pytest.raises(CtscribeError, match=r"must have finding queries.*E_NO_QUERIES"):
        calibrate(run, prepared, recipe_of(run), "test")


def test_a_calibration_of_other_weights_is_not_used(make_run: MakeRun, prepared: Path) -> None:
    run = make_run(True)
    assert read_calibration(run, "a") is None
    calibrate(run, prepared, recipe_of(run), "validation")
    assert read_calibration(run, "another") is None


def test_a_sentence_is_as_sure_as_its_least_sure_finding() -> None:
    probabilities = [0.5] * 18
    probabilities[9], probabilities[12] = 0.9, 0.2
    tokens, finding = sentence_log_odds(NODULE, -0.6, 6, probabilities) or (0, 0)
    assert tokens == pytest.approx(2.2522, abs=1e-3)  # e^−0.1 against 1 − e^−0.1
    assert finding == pytest.approx(2.1972, abs=1e-3)  # 0.9 against 0.1
    _, denied = sentence_log_odds(DENIED, -0.6, 6, probabilities) or (0, 0)
    assert denied == pytest.approx(-2.1972, abs=1e-3)  # 0.1 that there is no nodule
    assert sentence_log_odds(STOCK, -0.6, 6, probabilities) is None


def test_sentences_that_say_nothing_have_no_confidence() -> None:
    calibration = Calibration(
        weights_sha256="a",
        finding_slope=1,
        finding_offsets=(0,) * 18,
        sentence_slopes=(0, 1),
        sentence_offset=0,
        threshold=0.5,
    )
    probabilities = [0.8] * 18
    found = sentence_confidences(
        [NODULE, STOCK], [(-1.0, 5), (-1.0, 5)], probabilities, calibration
    )
    assert found == [pytest.approx(0.8), None]


@pytest.mark.parametrize(
    ("sentence", "present", "expected"),
    [(NODULE, {9}, True), (NODULE, {12}, False), (DENIED, {12}, False), (DENIED, {0}, True)],
)
def test_true_sentences(sentence: ReadSentence, present: set[int], expected: bool) -> None:
    assert is_true(sentence, [int(i in present) for i in range(18)]) == expected
