import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.recipe import EvaluateConfig, read_recipe
from ctscribe.measure.compare import compare
from ctscribe.measure.intervals import Jackknife
from ctscribe.measure.radeval import SCORERS, keys_of, score_systems, value_table
from ctscribe.measure.scores import evaluate
from ctscribe.measure.statistics import ALL_METRICS
from ctscribe.show.score_tables import differences_table, score_tables
from tests.refusals import refusal
from tests.studies import prediction, reported_studies

RADEVAL = '''
"""The interface of RadEval 2.2: its class, its arguments, its numbers per report."""
import os, warnings

LOADED, ASKED, OFFLINE = [], [], []

class RadEval:
    def __init__(self, metrics=None, openai_api_key=None, gemini_api_key=None, per_sample=False,
                 detailed=False, show_progress=True, cache_dir=None):
        warnings.filterwarnings("ignore")
        print("Using device: cpu")
        LOADED.extend(metrics)
        OFFLINE.append(os.environ.get("HF_HUB_OFFLINE"))
        if metrics == ["radfact_ct"]:
            raise OSError("We couldn't connect to 'https://huggingface.co'\\nto load the files")
        self.metrics, self.per_sample = metrics, per_sample

    def __call__(self, refs, hyps):
        if not (isinstance(hyps, list) and isinstance(refs, list)):
            raise TypeError("hyps and refs must be of type list")
        if len(refs) == 0:
            return {}
        ASKED.extend(zip(refs, hyps))
        assert self.per_sample
        common = [len({*r.split()} & {*h.split()}) / len({*r.split()} | {*h.split()})
                  for r, h in zip(refs, hyps)]
        if self.metrics == ["green"]:
            return {"green": [None if "unreadable" in h else c for h, c in zip(hyps, common)]}
        if self.metrics == ["radgraph"]:
            levels = zip(("simple", "partial", "complete"), (1, 1 / 2, 1 / 4))
            return {f"radgraph_{name}": [share * c for c in common] for name, share in levels}
        if self.metrics == ["bertscore"]:
            return {"bertscore": common[1:]}
        raise ValueError("the report says: " + hyps[0])
'''
PAIR = "a b c d"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "radeval").mkdir()
    (tmp_path / "radeval" / "__init__.py").write_text(RADEVAL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("radeval", "RadEval"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("fake")
def test_each_report_has_its_own_number_and_an_empty_one_is_not_asked_about() -> None:
    systems = [["a b c d", "", "a b"], ["a b c d", "a b x", " "]]
    first, second = score_systems(["green", "radgraph"], systems, [PAIR] * 3)
    assert first["green"].tolist() == [1, 0, 0.5]
    assert second["green"].tolist() == [1, 2 / 5, 0]
    assert second["radgraph_complete"].tolist() == [1 / 4, 1 / 10, 0]
    assert list(first) == keys_of(["green", "radgraph"])
    import radeval  # type: ignore[import-not-found]

    assert radeval.LOADED == ["green", "radgraph"]
    assert radeval.ASKED[:3] == [(PAIR, "a b c d"), (PAIR, "a b"), (PAIR, "a b x")]


@pytest.mark.usefixtures("fake")
def test_nothing_is_fetched_and_nothing_is_left_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    score_systems(["green"], [[PAIR]], [PAIR])
    import radeval
    from huggingface_hub import constants

    assert radeval.OFFLINE == ["1"]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert not constants.HF_HUB_OFFLINE
    with pytest.warns(UserWarning, match="still told"):
        warnings.warn("still told", stacklevel=1)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("fake")
def test_reports_without_a_number_are_left_out_and_counted() -> None:
    (found,) = score_systems(["green"], [[PAIR, "unreadable", "a b"]], [PAIR] * 3)
    assert np.isnan(found["green"][1])
    table = value_table(found, Jackknife.of(["p1", "p2", "p3"]))
    assert table["green"]["value"] == (1 + 0.5) / 2
    assert table["green"]["low"] is None
    assert table["green"]["too_few_patients"] == 3
    assert table["green"]["unscored"] == 1
    assert "GREEN-radllama2-7b" in table["green"]["signature"]


@pytest.mark.usefixtures("fake")
def test_without_weights_or_with_too_few_numbers_it_is_refused_without_quoting_reports() -> None:
    asked = [[PAIR, "a secret"]], [PAIR] * 2
    with refusal("E_RADEVAL", r"radfact_ct needs a server .*OPENAI_BASE_URL.*couldn't connect"):
        score_systems(["radfact_ct"], *asked)
    with refusal(
        "E_RADEVAL", r"bertscore needs distilbert-base-uncased in .*hub, but.*each of 2 reports"
    ):
        score_systems(["bertscore"], *asked)
    with refusal("E_RADEVAL", r"ratescore needs .*, but it ended with ValueError") as caught:
        score_systems(["ratescore"], [["a secret"]], [PAIR])
    assert "secret" not in str(caught.value)


def test_without_the_package_it_is_refused_with_what_to_install() -> None:
    with refusal("E_RADEVAL", r'No module named.*pip install "ctscribe\[radeval\]"'):
        score_systems(["green"], [[PAIR]], [PAIR])


def test_what_was_not_asked_for_is_not_imported() -> None:
    assert score_systems([], [[PAIR], [""]], [PAIR]) == [{}, {}]
    assert "radeval" not in sys.modules


@pytest.mark.usefixtures("fake")
def test_evaluate_scores_model_and_baselines_with_intervals() -> None:
    studies, training = reported_studies(40), reported_studies(20, "train")
    config = EvaluateConfig(resamples=100, radeval=("green", "radgraph"))
    rows = [prediction(study) for study in studies[1:]]
    scores = evaluate(rows, studies, training, config)
    green = scores["model"]["green"]
    assert green["value"] == pytest.approx(39 / 40)
    assert green["low"] < green["value"] <= green["high"]
    assert scores["model"]["radgraph_simple"]["value"] == pytest.approx(39 / 40)
    assert all("green" in baseline for baseline in scores["baselines"].values())
    titles = [table.title for table in score_tables({"Model": scores})]
    assert titles == ["Language", "Findings", "Judged by models (RadEval)"]
    without = evaluate(rows, studies, training, EvaluateConfig(resamples=100))
    assert without["model"].items() <= scores["model"].items()


@pytest.mark.usefixtures("fake")
def test_compare_pairs_them_and_holm_counts_them() -> None:
    studies = reported_studies(40)
    config = EvaluateConfig(resamples=200, radeval=("green",))
    perfect = [prediction(study) for study in studies]
    found = compare([[], []], {"perfect": [perfect, perfect]}, studies, config)
    row = found["differences"]["perfect"]["green"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((1, 1, 1))
    assert row["holds"]
    assert found["n"]["family"] <= len(ALL_METRICS) + 1
    assert found["n"]["trials"] >= 40 * (len(ALL_METRICS) + 1)
    assert "GREEN" in [row[0] for row in differences_table("Base", found).rows]


def test_the_recipe_names_them() -> None:
    recipe = read_recipe("ctscribe", ("evaluate.radeval=[green,ratescore]",))
    assert recipe.evaluate.radeval == ("green", "ratescore")
    with refusal("E_RECIPE", "radeval"):
        read_recipe("ctscribe", ("evaluate.radeval=[gren]",))
    assert set(SCORERS) >= {"green", "ratescore", "radgraph", "radfact_ct", "f1radbert_ct"}
