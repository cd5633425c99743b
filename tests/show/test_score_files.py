"""From files of scores to tables and back to files; the scores are really evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.measure.compare import compare
from ctscribe.measure.scores import evaluate
from ctscribe.measure.statistics import ALL_METRICS
from ctscribe.show.published import AS_OF, published_table
from ctscribe.show.score_tables import differences_table, run_names, tables_of
from ctscribe.show.tables import Value, to_markdown, write_tables, written_tables
from ctscribe.text.findings import FINDINGS
from tests.refusals import refusal
from tests.studies import prediction, study_row

CONFIG = EvaluateConfig(resamples=100)


def study(number: int, split: str) -> StudyRow:
    ill = number % 2
    return study_row(
        f"{split}_{number}_a_1.nii.gz",
        findings="A nodule of 4 mm is seen in the left lung." if ill else "Clear lungs.",
        impression="",
        labels=tuple(int(ill and name == "Lung nodule") for name in FINDINGS),
    )


TEST, TRAIN = ([study(number, split) for number in range(12)] for split in ("valid", "train"))


def rows(shift: int) -> list[PredictionRow]:
    return [prediction(of, TEST[(n + shift) % 12].findings) for n, of in enumerate(TEST)]


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    return evaluate(rows(0), TEST, TRAIN, CONFIG)


def test_one_run_is_taken_apart(scores: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", scores)
    tables = tables_of([tmp_path / "scores.json"])
    assert [table.title for table in tables] == [
        "Language",
        "Findings",
        "Each finding",
        "Outside the 18 findings",
        "Groups of scans",
        "Sides and sizes",
        "How alike reports are",
    ]
    found = {table.title: {str(row[0]): row[1:] for row in table.rows} for table in tables}
    assert str(found["Findings"]["scores"][0]) == "1.000 [0.735, 1.000]"
    assert str(found["Findings"]["scores"][5]) == "1.000 [too few patients]"
    assert found["Each finding"]["Lung nodule"][3:] == ("6", "0", "0", "0 of 6", "0 of 6")
    assert found["Groups of scans"]["nodule size: < 6 mm"][0] == "6"
    assert str(found["Sides and sizes"]["Same side"][0]) == "1.000 [too few patients]"
    assert found["How alike reports are"]["Distinct reports, number"] == ("2", "2")
    assert found["How alike reports are"]["Repeated reports"] == ("0.833", "0.833")
    paths = write_tables(tmp_path / "out", tables, "csv")
    assert paths[2].name == "each_finding.csv"
    assert "Lung nodule,1.000000" in paths[2].read_text(encoding="utf-8")
    assert written_tables(tables, "latex").count(r"\begin{tabular}") == 7


def test_what_others_published_stands_apart_dated_with_the_reason() -> None:
    table = published_table()
    assert AS_OF in table.title
    assert "may not be compared" in table.notes[0]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["CT-CHAT"][4:6] == (".184", ".368")
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "‡" not in to_markdown(table)


def test_several_runs_stand_in_common_tables(scores: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_json(tmp_path / name / "scores.json", scores)
    tables = tables_of([tmp_path / name / "scores.json" for name in ("one", "two")])
    assert len(tables) == 2
    assert [row[0] for row in tables[0].rows[:2]] == ["one/scores", "two/scores"]


def test_a_comparison_says_which_differences_hold(tmp_path: Path) -> None:
    found = {"base": "right"} | compare([rows(0)], {"wrong": [rows(1)]}, TEST, CONFIG)
    write_json(tmp_path / "comparison.json", found)
    (table,) = tables_of([tmp_path / "comparison.json"])
    assert table.title == "Differences from right"
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["Coverage"] == Value(-1.0, None, None)  # twelve patients are too few
    assert str(cells["F1, macro"]).startswith("-1.000 [too few patients]")
    held = json.loads(json.dumps(found))
    held["differences"]["wrong"]["coverage"]["holds"] = True
    marked = {row[0]: row[1] for row in differences_table("right", held).rows}
    assert marked["Coverage"] == Value(-1.0, None, None, "*")
    held_over = f"adjusted by Holm over all {len(ALL_METRICS)} comparisons"
    assert any(held_over in note for note in table.notes)


def test_other_files_and_other_scans_are_refused(scores: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", scores)
    write_json(tmp_path / "b.json", {"x": 1})
    write_json(tmp_path / "c.json", scores | {"n": scores["n"] | {"scans": 7}})
    with pytest.raises(CtscribeError, match=r"b must be what.*E_SCORES"):
        tables_of([tmp_path / "a.json", tmp_path / "b.json"])
    with pytest.raises(CtscribeError, match=r"same scans.*E_SCORES"):
        tables_of([tmp_path / "a.json", tmp_path / "c.json"])
    with pytest.raises(CtscribeError, match="given twice"):
        run_names([tmp_path / "a.json", tmp_path / "a.json"])


def test_scores_that_were_edited_are_refused(scores: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_json(path, scores)
    path.write_text(path.read_text().replace('"bleu_4"', '"bleu_5"', 1))
    with refusal("E_JSON", "does not have its own checksum"):
        tables_of([path])


@pytest.mark.parametrize("wrong", [None, [], 3, {}, "text"])
@pytest.mark.parametrize("key", ["model", "baselines", "n", "differences"])
def test_scores_of_another_form_are_refused(
    scores: dict[str, Any], tmp_path: Path, key: str, wrong: object
) -> None:
    write_json(tmp_path / "scores.json", {**scores, key: wrong})
    with refusal("E_SCORES", "must be what `ctscribe evaluate`"):
        tables_of([tmp_path / "scores.json"])
