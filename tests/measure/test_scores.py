import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.measure.language import Profile
from ctscribe.measure.scores import NUM_CHECKED, cross_check, evaluate
from ctscribe.show.score_tables import score_tables
from tests.studies import prediction, reported_studies

CONFIG = EvaluateConfig(resamples=200, seed=1)


def score_perfect(studies: Iterable[StudyRow]) -> dict[str, Any]:
    """The scores of predictions that are the references themselves."""
    rows = list(studies)
    training = reported_studies(30, "train")
    return evaluate([prediction(row) for row in rows], rows, training, CONFIG)


def values(scores: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {name: score["value"] for name, score in scores.items()}


def test_perfect_predictions_score_one() -> None:
    scores = score_perfect(reported_studies(40))
    model = values(scores["model"])
    assert model.pop("cider") > 5
    assert all(value == pytest.approx(1, abs=1e-8) for value in model.values())
    assert scores["model"].pop("cider")["too_few_patients"] == 40
    assert all(one["low"] <= one["value"] <= one["high"] for one in scores["model"].values())
    assert scores["missing"] == []
    assert scores["use"] == RESEARCH_USE
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_blind_predictions_have_crg_of_a_third() -> None:
    studies, training = reported_studies(40), reported_studies(40, "train")
    blind = [prediction(s, "Hiatal hernia. There is a nodule in the left lung.") for s in studies]
    scores = evaluate(blind, studies, training, CONFIG)
    assert scores["baselines"]["all_normal"]["crg"]["value"] == pytest.approx(1 / 3)
    assert scores["baselines"]["all_normal"]["coverage"]["value"] == 0
    assert scores["template"]["predictions"]["distinct_reports"] == 1
    assert scores["template"]["predictions"]["self_bleu_4"] == pytest.approx(1)
    retrieval = scores["baselines"]["label_retrieval"]["coverage"]["value"]
    assert retrieval > scores["baselines"]["other_patient"]["coverage"]["value"]


def test_reports_that_were_cut_short_are_counted() -> None:
    studies, training = reported_studies(8), reported_studies(20, "train")
    told = [False, False, True, True, None, None, None]
    rows = [
        prediction(study).model_copy(update={"finished": finished})
        for study, finished in zip(studies[:7], told, strict=True)
    ]
    scores = evaluate(rows, studies, training, CONFIG)
    assert scores["unfinished"] == {"count": 2, "known": 4, "share": 0.5}
    unknown = evaluate(rows[4:], studies, training, CONFIG)
    assert unknown["unfinished"] == {"count": 0, "known": 0, "share": None}
    notes = score_tables({"Model": scores, "Other": unknown})[0].notes
    assert "Model: 2 of 4 reports (50.0 %) cut short by the length limit." in notes
    assert sum("cut short" in note for note in notes) == 1


def test_order_does_not_matter() -> None:
    studies, training = reported_studies(25), reported_studies(20, "train")
    predictions = [prediction(s, t.findings) for s, t in zip(studies, studies[3:], strict=False)]
    before = evaluate(predictions, studies, training, CONFIG)
    rng = random.Random(2)
    for rows in (predictions, studies, training):
        rng.shuffle(rows)
    assert evaluate(predictions, studies, training, CONFIG) == before


def test_doubling_every_patient_changes_no_score() -> None:
    studies, training = reported_studies(25), reported_studies(20, "train")
    predictions = [prediction(s, t.findings) for s, t in zip(studies, studies[3:], strict=False)]

    def other(row: StudyRow | PredictionRow) -> dict[str, str]:
        return {"scan_id": row.scan_id + "2", "patient_id": row.patient_id + "2"}

    twins = [row.model_copy(update=other(row)) for row in studies]
    both = [*predictions, *(row.model_copy(update=other(row)) for row in predictions)]
    once = values(evaluate(predictions, studies, training, CONFIG)["model"])
    twice = evaluate(both, [*studies, *twins], training, CONFIG)
    assert values(twice["model"]) == pytest.approx(once, abs=1e-9)


def test_reconstructions_count_once_and_missing_scans_count_as_empty() -> None:
    studies = reported_studies(12)
    second = [
        s.model_copy(update={"volume_name": s.volume_name.replace("_1.", "_2.")}) for s in studies
    ]
    predictions = [prediction(s) for s in studies[1:]]
    scores = evaluate(predictions, [*studies, *second], reported_studies(9, "train"), CONFIG)
    assert scores["n"]["scans"] == 12
    assert scores["n"]["predicted"] == 11
    assert scores["missing"] == [studies[0].scan_id]
    assert scores["model"]["rouge_l"]["value"] == pytest.approx(11 / 12)


def test_strata_follow_the_reference() -> None:
    scores = score_perfect(reported_studies(40))
    sizes = {row["stratum"]: row for row in scores["strata"] if row["grouping"] == "nodule size"}
    assert set(sizes) == {"none", "< 6 mm"}
    assert sizes["< 6 mm"]["nodule_coverage"]["value"] == 1
    assert sizes["none"]["nodule_coverage"]["value"] is None
    assert sum(row["scans"] for row in sizes.values()) == 40


def test_labels_are_read_from_the_text_where_none_are_given() -> None:
    scores = score_perfect(s.model_copy(update={"labels": None}) for s in reported_studies(20))
    assert scores["n"]["labels_read_from_text"] == 20
    assert scores["model"]["f1"]["value"] == 1


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("unknown scan", "E_PREDICTION"),
        ("two reports", "E_PREDICTION"),
        ("other patient", "E_PREDICTION"),
        ("reports differ", "E_SCAN"),
        ("no references", "E_EVALUATE"),
        ("no training", "E_EVALUATE"),
    ],
)
def test_contradictions_are_refused(case: str, code: str) -> None:
    studies, training = reported_studies(4), reported_studies(4, "train")
    predictions = [prediction(s) for s in studies]
    if case == "unknown scan":
        predictions.append(prediction(training[0]))
    elif case == "two reports":
        predictions.append(prediction(studies[0], "Something else."))
    elif case == "other patient":
        predictions[0] = predictions[0].model_copy(update={"patient_id": "nobody"})
    elif case == "reports differ":
        studies.append(studies[0].model_copy(update={"volume_name": "x", "impression": "New."}))
    elif case == "no references":
        studies = []
    else:
        training = []
    with pytest.raises(CtscribeError, match=code):
        evaluate(predictions, studies, training, CONFIG)


PREDICTIONS = ["The heart is of normal size .", "", "A nodule is seen in the left lung.\n"]
REFERENCES = ["The heart is of normal size.", "No effusion.", "A nodule is seen in the right lung."]


@pytest.mark.parametrize("profile", ["ctrate-raw", "r2gen"])
def test_sacrebleu_finds_the_same(profile: Profile) -> None:
    found = cross_check(predictions=PREDICTIONS, references=REFERENCES, profile=profile)
    assert isinstance(found["bleu_4"], float)
    assert 0.3 < found["bleu_4"] < 1
    assert found["sacrebleu"] == pytest.approx(found["bleu_4"], abs=1e-9)
    assert found["scans"] == 3
    assert "tok:none|smooth:none" in str(found["signature"])


def test_only_the_first_reports_are_scored_twice() -> None:
    many = [REFERENCES[0]] * NUM_CHECKED
    found = cross_check(
        predictions=[*many, "x"], references=[*many, "A B C D E"], profile="ctrate-raw"
    )
    assert found["scans"] == NUM_CHECKED
    assert found["sacrebleu"] == pytest.approx(1)
