"""METEOR: one sentence without it, and pycocoevalcap's value with it (make oracle)."""

import os
import sys

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.measure.language import meteor

WRITTEN = ["The heart is of normal size.\nNo effusion is seen.", "", "A nodule is seen."]
TRUTH = ["The heart has a normal size. No effusion.", "The lungs are clear.", "A nodule is seen."]


def test_without_pycocoevalcap_it_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    with pytest.raises(CtscribeError, match=r"pip install pycocoevalcap.*E_METEOR"):
        meteor(predictions=WRITTEN, references=TRUTH, profile="ctrate-raw")


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_with_it_the_value_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    if "CTSCRIBE_ORACLE" not in os.environ:
        pytest.importorskip("pycocoevalcap", reason="pycocoevalcap 1.2 is not there: make oracle")
    from pycocoevalcap.meteor.meteor import Meteor  # type: ignore[import-not-found,unused-ignore]

    found = meteor(predictions=WRITTEN, references=TRUTH, profile="ctrate-raw")
    # The newline vanishes without a space, as in the challenge's handling of strings.
    flat = {0: ["The heart is of normal size.No effusion is seen."], 1: [""], 2: [WRITTEN[2]]}
    expected, _ = Meteor().compute_score({i: [text] for i, text in enumerate(TRUTH)}, flat)
    assert found["value"] == expected
    assert 0 < expected < 1
    assert (found["low"], found["high"]) == (None, None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CtscribeError, match=r"Java.*E_METEOR"):
        meteor(predictions=WRITTEN, references=TRUTH, profile="ctrate-raw")
