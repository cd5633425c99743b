"""Several processes, one of which is killed, leave the file that one process leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.locks import many_writers_of, one_writer_of
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, read_rows
from ctscribe.cli.app import app
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.write.generate import generate
from ctscribe.write.prediction_file import PredictionFile
from ctscribe.write.writer import ReportWriter
from tests.holders import held
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

RECIPE = Recipe.model_validate(
    {
        "model": {"positions": "depth", "dtype": "float32"},
        "generate": {"max_new_tokens": 16, "batch_size": 2},
    }
)
STUDIES = [study_row(f"valid_{number}_a_1.nii.gz") for number in range(41)]
FEW = 7


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> ReportWriter:
    model = tiny_model(tokenizer, decided=True)
    return ReportWriter(write_run(tmp_path / "run", RECIPE, model, tokenizer))


def prepare(folder: Path, number: int) -> Prepared:
    frames = random_frames(number, (4, 56, 56, 3))
    return write_prepared(folder / "prepared", STUDIES[:number], RECIPE, frames=frames)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(tmp_path, FEW)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_of_several_processes_makes_the_file(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    whole, out = tmp_path / "whole.jsonl", tmp_path / "new" / "p.jsonl"
    rows = generate(run, prepared, "test", whole)
    first = generate(
        run, prepared, "test", out, share=(1, 3), progress=lambda *done: told.append(done)
    )
    assert [row.scan_id for row in first] == [STUDIES[number].scan_id for number in (2, 3)]
    assert told == [(0, 2), (2, 2)]
    assert not out.exists()
    assert left(out.parent) == ["p.asked.json", "p.shards"]
    assert len(generate(run, prepared, "test", out, share=(2, 3))) == 4
    assert generate(run, prepared, "test", out, share=(0, 3)) == rows
    assert out.read_bytes() == whole.read_bytes()
    assert left(out.parent) == ["p.asked.json", "p.jsonl"]
    assert generate(run, prepared, "test", out, share=(0, 12)) == rows
    assert left(out.parent) == ["p.asked.json", "p.jsonl"]


@pytest.mark.parametrize("last", [[(0, 1)], [(0, 2), (1, 2)]])
def test_what_another_number_of_processes_left_is_taken_over(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, last: list[tuple[int, int]]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    generate(run, prepared, "test", whole)
    generate(run, prepared, "test", out, share=(2, 3))
    part = tmp_path / "p.shards" / "3-of-3.jsonl"
    written = part.read_text()
    assert len(written.splitlines()) == 2
    part.write_text(written[:-20])  # as a killed process leaves it
    for share in last:
        generate(run, prepared, "test", out, share=share)
    assert out.read_bytes() == whole.read_bytes()
    assert not part.parent.exists()


def test_wherever_it_was_interrupted_the_same_scans_are_written_together(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.jsonl"
    generate(run, prepared, "test", out)
    whole, sizes = out.read_text(), []
    out.write_text("".join(whole.splitlines(keepends=True)[:3]))
    answers = ReportWriter.answers

    def counted(writer: ReportWriter, visuals: Sequence[Visual]) -> list[Answer]:
        sizes.append(len(visuals))
        return answers(writer, visuals)

    monkeypatch.setattr(ReportWriter, "answers", counted)
    generate(run, prepared, "test", out)
    assert sizes == [2, 2, 1]
    assert out.read_text() == whole


def test_parts_of_other_weights_are_not_mixed_in(
    run: ReportWriter, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    generate(run, prepared, "test", out, share=(0, 2))
    save_model(run.run_dir / "best", tiny_model(tokenizer, seed=1), tokenizer)
    for share in ((0, 1), (1, 2)):
        with refusal("E_RUN_EXISTS", "differs in the weights"):
            generate(ReportWriter(run.run_dir), prepared, "test", out, share=share)


def test_one_process_and_several_do_not_write_beside_each_other(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    with held(many_writers_of(out)):
        with refusal("E_BUSY", "p.jsonl"):
            generate(run, prepared, "test", out)
        generate(run, prepared, "test", out, share=(0, 2))
    with held(one_writer_of(out)), refusal("E_BUSY", "p.jsonl"):
        generate(run, prepared, "test", out, share=(1, 2))
    part = PredictionFile(out, [], share=(1, 2)).own_path
    with held(one_writer_of(part)), refusal("E_BUSY", "2-of-2"):
        generate(run, prepared, "test", out, share=(1, 2))


def test_what_writes_in_one_process_refuses_several(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["generate", str(run.run_dir), "--prepared", str(prepared.folder)]
    for more in (
        ["--generator", "template"],
        ["--engine", "openai", "--endpoint", "http://127.0.0.1:9/v1"],
    ):
        with refusal("E_PROCESSES", "asked for in 2"):
            app([*words, *more], result_action="return_value")


def torchrun(stage: str, run: ReportWriter, prepared: Prepared) -> "subprocess.Popen[str]":
    """The stage in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "--", "ctscribe.cli", stage]
    command += [str(run.run_dir), "--prepared", str(prepared.folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def kill_half_way(launched: "subprocess.Popen[str]", part: Path) -> None:
    """Kills the process that appends to a part as soon as that has a row, and so all of them."""
    while not part.exists() or not part.read_bytes().count(b"\n"):
        assert launched.poll() is None, launched.communicate()[1][-3000:]
        time.sleep(0.01)
    holder = part.with_name(f".{part.name}.lock").read_text().split()[0]
    os.kill(int(holder), signal.SIGKILL)
    assert launched.communicate(timeout=120)
    assert launched.returncode != 0


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
def test_one_of_two_processes_killed_half_way_loses_nothing(
    run: ReportWriter, tmp_path: Path
) -> None:
    prepared = prepare(tmp_path, len(STUDIES))
    whole, out = tmp_path / "whole.jsonl", run.run_dir / "predictions_test.jsonl"
    rows = generate(run, prepared, "test", whole)
    part = PredictionFile(out, [], share=(1, 2)).own_path
    kill_half_way(torchrun("generate", run, prepared), part)
    kept = read_rows(part, PredictionRow, partial=True)
    assert 0 < len(kept) < len(STUDIES) // 2
    assert not out.exists()
    again = torchrun("generate", run, prepared)
    told = again.communicate(timeout=300)[1]
    assert again.returncode == 0, told[-3000:]
    assert f"{len(rows)} reports in {out}" in told
    assert out.read_bytes() == whole.read_bytes()
    assert not part.parent.exists()
