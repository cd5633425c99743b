import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, read_rows, write_rows
from ctscribe.base.runs import open_run
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.features import frames_of
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.write import writer as module
from ctscribe.write.find_evidence import find_evidence
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.damage import flip_bit, full_disk
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

RECIPE = Recipe.model_validate(
    {
        "model": {"positions": "depth", "dtype": "float32"},
        "generate": {"max_new_tokens": 8, "batch_size": 2},
    }
)
NAMES = ("valid_1_a_1", "valid_1_a_2", "valid_1_b_1", "valid_2_a_1")
STUDIES = [study_row(f"{name}.nii.gz") for name in NAMES]


@pytest.fixture(scope="module")
def run(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> ReportWriter:
    folder = tmp_path_factory.mktemp("run")
    return ReportWriter(write_run(folder, RECIPE, tiny_model(tokenizer), tokenizer))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    frames = random_frames(len(STUDIES), (4, 56, 56, 3))
    return write_prepared(tmp_path / "prepared", STUDIES, RECIPE, frames=frames)


def test_one_row_per_scan_from_its_first_reconstruction(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "new" / "predictions.jsonl"
    rows = generate(run, prepared, "test", out, progress=lambda *done: told.append(done))
    scans = [STUDIES[i] for i in (0, 2, 3)]
    assert [row.volume_name for row in rows] == [scan.volume_name for scan in scans]
    assert prepared.scans("test") == scans
    assert rows == read_rows(out, PredictionRow)
    assert told == [(0, 3), (2, 3), (3, 3)]
    assert all(row.num_tokens is not None and row.num_tokens <= 8 for row in rows)


def test_an_interrupted_file_is_continued_to_the_same_end(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "predictions.jsonl"
    rows = generate(run, prepared, "test", out)
    whole = out.read_text()
    cut = whole.splitlines(keepends=True)
    out.write_text(cut[0] + cut[1][:25])
    assert generate(run, prepared, "test", out) == rows
    assert out.read_text() == whole

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is left to write, so no model may be loaded")

    monkeypatch.setattr(module, "load_model", refuse)
    unloaded = ReportWriter(run.run_dir)
    assert generate(unloaded, prepared, "test", out) == rows


def test_batches_frames_and_stored_features_write_the_same(
    run: ReportWriter, prepared: Prepared
) -> None:
    shown = [frames_of(QWEN2_5_VL, prepared, row) for row in STUDIES[:2]]
    store = run.features(prepared, STUDIES[:2])
    together = run.answers(shown)
    alone = [run.answers([visual])[0] for visual in shown]
    stored = run.answers([store.visual(row) for row in STUDIES[:2]])
    assert [w.token_ids for w in together] == [w.token_ids for w in alone]
    assert [w.token_ids for w in together] == [w.token_ids for w in stored]


def test_a_split_without_scans_and_a_run_without_weights_are_told(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    told = r"the train split must have scans, but none of the 4 volumes in .* belongs to it.*"
    with pytest.raises(CtscribeError, match=told + "E_EMPTY_SPLIT"):
        generate(run, prepared, "train", tmp_path / "p.jsonl")
    open_run(tmp_path / "run", "train", {"recipe": RECIPE.model_dump(mode="json")})
    with pytest.raises(CtscribeError, match="E_WEIGHTS"):
        generate(ReportWriter(tmp_path / "run"), prepared, "test", tmp_path / "p.jsonl")


def test_reports_of_other_scans_frames_or_weights_are_not_mixed(
    run: ReportWriter, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    own = ReportWriter(shutil.copytree(run.run_dir, tmp_path / "run"))
    out = own.run_dir / "predictions_test.jsonl"
    generate(own, prepared, "test", out)
    written = out.read_text()
    frames = random_frames(len(STUDIES) + 1, (4, 56, 56, 3))
    more = [*STUDIES, study_row("valid_3_a_1.nii.gz")]
    for name, studies, shown in (("more", more, frames), ("same", STUDIES, frames[1:])):
        other = write_prepared(tmp_path / name, studies, RECIPE, frames=shown)
        with refusal("E_RUN_EXISTS", "differs in the scans"):
            generate(own, other, "test", out)
    save_model(own.run_dir / "best", tiny_model(tokenizer, seed=1), tokenizer)
    with refusal("E_RUN_EXISTS", "differs in the weights"):
        generate(ReportWriter(own.run_dir), prepared, "test", out)
    assert out.read_text() == written


def test_a_flipped_bit_in_what_is_written_is_one_sentence(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.jsonl"
    generate(run, prepared, "test", out)
    flip_bit(out, 0.4)
    with refusal("E_ROW", "line 2 must be"):
        generate(run, prepared, "test", out)


@pytest.mark.parametrize("num_bytes", [0, 100, 450])
def test_on_a_full_disk_reports_end_in_one_sentence_and_go_on_later(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, num_bytes: int
) -> None:
    generate(run, prepared, "test", tmp_path / "whole.jsonl")
    out = tmp_path / "cut.jsonl"
    with refusal("E_WRITE"), full_disk(num_bytes):
        generate(run, prepared, "test", out)
    generate(run, prepared, "test", out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_evidence_belongs_to_the_reports_it_was_found_for(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    reports, out = tmp_path / "predictions.jsonl", tmp_path / "evidence.jsonl"
    rows = generate(run, prepared, "test", reports)
    found = find_evidence(run, prepared, reports, out, limit=1)
    assert find_evidence(run, prepared, reports, out)[:1] == found
    with refusal("E_WRITE"), full_disk(0):
        find_evidence(run, prepared, reports, tmp_path / "full.jsonl")
    write_rows(reports, [row.model_copy(update={"findings": "A nodule."}) for row in rows])
    with refusal("E_RUN_EXISTS", "differs in the predictions"):
        find_evidence(run, prepared, reports, out)
