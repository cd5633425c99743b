import pytest

from ctscribe.measure.language import Profile
from ctscribe.measure.scores import NUM_CHECKED, cross_check

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
