"""The front door: its examples, README's, and what a notebook may hand over."""

import doctest
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

import ctscribe as ct
from ctscribe import front
from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig, read_recipe
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS
from tests.dicom import write_series
from tests.models import tiny_model, write_run
from tests.studies import prediction, study_row

ROOT = Path(__file__).resolve().parents[1]
KNOBS = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "volume.spacing_mm=[6,6,8]")
FEW = EvaluateConfig(resamples=100)
NODULE, CLEAR = "A lung nodule is seen.", "The lungs are clear."


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM series and a run, where README and the examples have them."""
    folder = tmp_path_factory.mktemp("notebook")
    write_series(folder / "series")
    recipe = read_recipe("tiny", (*KNOBS, "generate.max_new_tokens=24"))
    write_run(folder / "runs/heter", recipe, tiny_model(tokenizer), tokenizer)
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("function", ["read_scan", "load_writer", "find_findings", "score"])
def test_the_examples_hold(function: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(
        getattr(front, function), function, module=front, globs={"ct": ct}
    )
    assert example.examples
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example, out=told.append).failed == 0, "".join(told)


@pytest.mark.usefixtures("inside")
def test_readmes_example_runs_as_it_stands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    rows = columns(VolumeName=("a", "b"), text=(NODULE, CLEAR))
    values: dict[str, Any] = {"rows": rows}
    exec(example, values)
    assert repr(values["scan"]) == (
        "CTVolume(160 × 128 × 24 voxels of 2.00 × 2.00 × 5.00 mm, RAS, int16)"
    )
    draft = values["draft"]
    assert len(draft.findings) == 18
    assert [row.text in draft.text for row in draft.sentences] == [True] * len(draft.sentences)
    assert all(len(repr(row).splitlines()) == 1 for row in (*draft.sentences, *draft.findings))


def test_what_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match="E_MISSING"):
        ct.read_scan(tmp_path / "nothing")
    with pytest.raises(CtscribeError, match="E_MISSING"):
        ct.load_writer(tmp_path / "nothing")


@pytest.mark.parametrize("nothing", [None, float("nan"), "", np.datetime64("NaT")])
def test_an_empty_cell_says_nothing_of_any_finding(nothing: Any) -> None:  # noqa: ANN401
    assert ct.find_findings(nothing) == dict.fromkeys(FINDINGS, "not mentioned")


def test_findings_come_from_text_only() -> None:
    assert list(ct.find_findings(NODULE)) == list(FINDINGS)
    with pytest.raises(CtscribeError, match="must be text, but is of the type int"):
        ct.find_findings(5)


@final
@dataclass(frozen=True)
class Pandas:
    """As much of a data frame as is asked for: iterated over, it gives its columns."""

    rows: Sequence[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return list(self.rows)

    def __iter__(self) -> Any:  # noqa: ANN401
        return iter(self.columns)


@final
@dataclass(frozen=True)
class Polars:
    """The same of polars, which has ``to_dict`` too, with another meaning."""

    rows: Sequence[dict[str, Any]]
    columns: tuple[str, ...] = ()

    def to_dicts(self) -> list[dict[str, Any]]:
        return list(self.rows)

    def to_dict(self) -> dict[str, list[Any]]:
        raise AssertionError("gives columns")

    def __iter__(self) -> Any:  # noqa: ANN401
        raise AssertionError("gives columns")


NAMES = ("valid_1_a_1.nii.gz", "valid_2_a_1.nii.gz", "valid_3_a_1.nii.gz")
TRUE = (NODULE, CLEAR, "There is a pleural effusion.")
SAID = (NODULE, NODULE, "")
STUDIES = [
    study_row(name, findings=text, impression="") for name, text in zip(NAMES, TRUE, strict=True)
]
OURS = [prediction(study, text) for study, text in zip(STUDIES, SAID, strict=True)]
EXPECTED = evaluate(OURS, STUDIES, None, FEW)


def columns(**cells: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of named columns."""
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


WAYS: dict[str, tuple[Any, Any]] = {
    "texts": (list(SAID), list(TRUE)),
    "empty cells": ([*SAID[:2], float("nan")], TRUE),
    "names with texts": (dict(zip(NAMES, SAID, strict=True)), dict(zip(NAMES, TRUE, strict=True))),
    "another order and other suffixes": (
        columns(id=[f"{name[:11]}.mha" for name in NAMES[::-1]], report=SAID[::-1]),
        columns(volume_name=NAMES, findings=TRUE, impression=[None] * 3),
    ),
    "pandas of CT-RATE": (
        Pandas(columns(VolumeName=NAMES, report_text=[*SAID[:2], None])),
        Pandas(columns(VolumeName=NAMES, Findings_EN=TRUE, Impressions_EN=["Not given."] * 3)),
    ),
    "polars": (
        Polars(columns(VolumeName=NAMES[:2], text=SAID[:2])),
        Polars(columns(VolumeName=NAMES, patient=[None] * 3, text=TRUE)),
    ),
    "our rows": (OURS, STUDIES),
}


@pytest.mark.parametrize("way", WAYS)
def test_reports_in_any_form_score_alike(way: str) -> None:
    predictions, references = WAYS[way]
    found = ct.score(predictions=predictions, references=references, config=FEW).values
    for part in ("model", "baselines", "per_finding", "agreement"):
        assert found[part] == EXPECTED[part], part
    assert found["n"]["patients"] == 3


def test_labels_are_taken_where_they_are_given() -> None:
    labels = np.zeros((3, 18), dtype=bool)
    labels[1, 0] = True
    beside = [dict(zip(FINDINGS, row, strict=True)) for row in labels]
    for references in (
        columns(report=TRUE, labels=list(labels)),
        [{"report": text, **cells} for text, cells in zip(TRUE, beside, strict=True)],
    ):
        found = ct.score(predictions=SAID, references=references, config=FEW).values
        assert found["n"]["labels_read_from_text"] == 0
        first = found["per_finding"][0]
        assert (first["true_positives"], first["false_negatives"]) == (0, 1)


def test_training_reports_are_all_used_and_must_be_of_other_patients() -> None:
    training = columns(VolumeName=[f"train_{n}_a_1" for n in range(40)], text=[NODULE] * 40)
    references = dict(zip(NAMES, TRUE, strict=True))
    found = ct.score(predictions=SAID, references=references, training=training, config=FEW)
    assert found.values["n"]["training_scans"] == 40
    bare = ct.score(predictions=SAID, references=references, training=[NODULE] * 40, config=FEW)
    assert bare.values["baselines"] == found.values["baselines"]
    with pytest.raises(CtscribeError, match="1 patients of the references are in the training"):
        own = {"valid_1_b_1": NODULE}
        ct.score(predictions=SAID, references=references, training=own, config=FEW)


def test_references_without_findings_are_left_out_with_their_predictions() -> None:
    found = ct.score(predictions=[*SAID, NODULE], references=[*TRUE, None], config=FEW).values
    assert found["model"] == EXPECTED["model"]
    assert (found["n"]["scans"], found["n"]["reports_left_out"]) == (3, 1)


@pytest.mark.parametrize(
    ("predictions", "references", "told"),
    [
        (SAID, [{"report": NODULE, "labels": (1,)}], "must have 18 labels each, but one has 1"),
        ("a text", TRUE, "the predictions must be many, but are one text"),
        (SAID, [], "the references must be reports, but are none"),
        ([1, 2, 3], TRUE, "each of the predictions must be a report, but one is of the type int"),
        (SAID[:2], TRUE, "there are 2 for 3"),
        ({"x": ""}, {"a": NODULE, "b": CLEAR}, "belong to one of the references, but 1 do not"),
        ([{"VolumeName": "a"}], {"a": NODULE, "b": CLEAR}, "the predictions must have VolumeName"),
        ({"a.nii": "", "a.mha": ""}, {"a": NODULE, "b": CLEAR}, "a occurs twice"),
        (
            [{"id": "a", "report": ""}, {"report": ""}],
            {"a": NODULE, "b": CLEAR},
            "the predictions must have a VolumeName, but row 2 has none",
        ),
    ],
)
def test_what_cannot_be_scored_is_told_in_a_sentence(
    predictions: Any,  # noqa: ANN401
    references: Any,  # noqa: ANN401
    told: str,
) -> None:
    with pytest.raises(CtscribeError) as caught:
        ct.score(predictions=predictions, references=references)
    assert told in caught.value.sentence


def test_scores_are_told_in_a_line_and_shown_as_a_table() -> None:
    scores = ct.score(predictions=SAID, references=TRUE, config=FEW)
    assert re.fullmatch(r"Scores\(3 scans: bleu_4 .+, coverage .+, precision .+\)", repr(scores))
    table = scores.table()
    assert table._repr_markdown_() == table
    assert "| Constant report" in table


def python(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_importing_costs_nothing() -> None:
    heavy = {"torch", "numpy", "pydantic", "transformers"}
    code = f"import sys, ctscribe; dir(ctscribe); print(sorted({heavy} & sys.modules.keys()))"
    assert python(code) == "[]\n"
    scoring = "import sys, ctscribe; ctscribe.find_findings(''); print('torch' in sys.modules)"
    assert python(scoring) == "False\n"


def test_every_name_is_there_and_no_other() -> None:
    found: dict[str, Any] = {}
    exec("from ctscribe import *", found)
    assert set(ct.__all__) == found.keys() - {"__builtins__"} == set(dir(ct))
    assert set(ct._ROOMS) < set(ct.__all__)
    with pytest.raises(AttributeError, match="module 'ctscribe' has no attribute 'nothing'"):
        _ = ct.nothing
