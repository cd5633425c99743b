from collections.abc import Callable

from ctscribe.config import EvaluateConfig
from ctscribe.evaluate.compare import compare
from ctscribe.rows import PredictionRow, StudyRow

MakeStudies = Callable[..., list[StudyRow]]
MakePrediction = Callable[..., PredictionRow]
CONFIG = EvaluateConfig(resamples=500, seed=0)


def test_a_run_does_not_differ_from_itself(
    make_studies: MakeStudies, make_prediction: MakePrediction
) -> None:
    studies = make_studies(20)
    rows = [make_prediction(study) for study in studies]
    table = compare(rows, rows, studies, CONFIG)
    assert all(row["difference"] == 0 and row["p"] == 1 for row in table.values())
    assert not any(row["holds"] for row in table.values())


def test_a_perfect_run_beats_an_empty_one_in_both_directions(
    make_studies: MakeStudies, make_prediction: MakePrediction
) -> None:
    studies = make_studies(40)
    perfect = [make_prediction(study) for study in studies]
    ahead = compare(perfect, [], studies, CONFIG)
    behind = compare([], perfect, studies, CONFIG)
    assert ahead["coverage"]["difference"] == 1 == -behind["coverage"]["difference"]
    assert ahead["coverage"]["holds"]
    assert ahead["coverage"]["p"] == 1 / 501
    assert ahead["bleu_1"]["low"] > 0 > behind["bleu_1"]["high"]


def test_one_better_report_of_forty_is_not_a_difference(
    make_studies: MakeStudies, make_prediction: MakePrediction
) -> None:
    studies = make_studies(40)
    rows = [make_prediction(study, "The heart is of normal size.") for study in studies]
    other = [make_prediction(studies[0]), *rows[1:]]
    assert not any(row["holds"] for row in compare(other, rows, studies, CONFIG).values())
