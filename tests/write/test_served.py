"""Reports by servers of other programs: what they are sent, and what comes of it."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow, read_rows
from ctscribe.cli.app import app
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.publish import publish
from ctscribe.learn.model.qwen3_vl import QWEN3_VL
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import QUESTION, SYSTEM, VIDEO_PAD, encode_prompt, prompt_messages
from ctscribe.write.cue_table import read_cue_table
from ctscribe.write.endpoint import Endpoint
from ctscribe.write.served import Served, generate_served
from ctscribe.write.server_prompt import fields_of_a_video, trained_prompt
from ctscribe.write.writer import ReportWriter
from tests.chat_server import answer, serving, written
from tests.models import tiny_model, tiny_of, write_run
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

GENERATE = {"max_new_tokens": 8}
RECIPE = Recipe.model_validate({"model": {"dtype": "float32"}, "generate": GENERATE})
NUMBER = 6
PLANTED = "PLANTED"
STUDIES = [
    study_row(f"{PLANTED}_{number}_a_1.nii.gz", source_split="valid") for number in range(NUMBER)
]
FRAMES = random_frames(NUMBER, (4, 84, 84, 3))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return write_prepared(tmp_path / "prepared", STUDIES, RECIPE, frames=FRAMES)


def run_of(folder: Path, tokenizer: PreTrainedTokenizerBase, **model: object) -> ReportWriter:
    knobs = {"model": {"dtype": "float32", **model}, "generate": GENERATE}
    recipe = Recipe.model_validate(knobs)
    return ReportWriter(write_run(folder, recipe, tiny_model(tokenizer, decided=True), tokenizer))


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> ReportWriter:
    return run_of(tmp_path / "run", tokenizer)


def served(url: str, model: str = "m", num_parallel: int = 1) -> Served:
    return Served(Endpoint(url, tries=2), model, num_parallel=num_parallel)


def pictures(data: str) -> np.ndarray:
    decoded = (io.BytesIO(base64.b64decode(each)) for each in data.split(","))
    return np.stack([np.array(Image.open(file)) for file in decoded])


def test_a_server_sees_frames_and_prompt_and_no_name(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    text = "Findings: A nodule.\nImpression: Nodule."
    with serving(written(text), written(text, "length")) as (url, asked):
        rows = generate_served(run, prepared, "test", out, served(url))
    assert [row.scan_id for row in rows] == [study.scan_id for study in STUDIES]
    assert {(row.findings, row.impression) for row in rows} == {("A nodule.", "Nodule.")}
    assert [row.finished for row in rows] == [True] + [False] * 5
    for number, question in enumerate(asked):
        assert PLANTED not in question
        assert str(tmp_path) not in question
        system, user = json.loads(question.splitlines()[-1])["messages"]
        assert system == {"role": "system", "content": SYSTEM}
        *shown, prompt = user["content"]
        assert prompt == {"type": "text", "text": QUESTION}
        urls = [part["image_url"]["url"].split(",") for part in shown]
        assert {head for head, _ in urls} == {"data:image/png;base64"}
        assert np.array_equal(pictures(",".join(data for _, data in urls)), FRAMES[number])


def test_a_video_is_one_part_of_all_frames(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    words = ["generate", str(run.run_dir), "--prepared", str(prepared.folder), "--engine", "openai"]
    words += ["--model", "m", "--send-as", "video", "--parallel", "1"]
    read = len(encode_prompt(run.tokenizer, (2, 6, 6)))
    with serving(written("ok", read=read)) as (url, asked):
        app([*words, "--endpoint", url], result_action="return_value")
    question = json.loads(asked[0].splitlines()[-1])
    assert question["media_io_kwargs"] == {
        "video": {
            **{"fps": 2.0, "frames_indices": [0, 1, 2, 3], "total_num_frames": 4},
            "num_frames": -1,  # vLLM takes 32 by itself
        }
    }
    video, _ = question["messages"][1]["content"]
    head, data = video["video_url"]["url"].split(",", 1)
    assert head == "data:video/jpeg;base64"
    shown = pictures(data).astype(int)
    assert shown.shape == FRAMES[0].shape
    assert np.abs(shown - FRAMES[0]).mean() < 2
    asked_for = read_json(run.run_dir / "predictions_test.asked.json")
    assert (asked_for["engine"], asked_for["model"]) == ("openai", "m")
    assert asked_for["send_as"] == "video"


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        ({}, "does not tell what it reads"),
        ({"read": 40}, "reads 40"),
        ({"read": 58, "ids": [1] * 77}, "reads 77"),
        ({"read": 58, "ids": [1] * 58}, "reads others"),
    ],
)
def test_a_report_from_another_prompt_than_the_runs_is_refused(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, answered: dict[str, object], told: str
) -> None:
    out = tmp_path / "p.jsonl"
    with serving(written("ok", **answered)) as (url, _):  # type: ignore[arg-type]
        video = replace(served(url), send_as="video")
        with refusal("E_ENDPOINT", f"6 of 6 have none; .* trained on, of 58 tokens, but it {told}"):
            generate_served(run, prepared, "test", out, video)
    assert not out.exists()


@pytest.mark.parametrize("positions", ["depth", "index"])
def test_a_server_can_build_the_runs_own_prompt_where_depth_is_words(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, positions: str
) -> None:
    """As vLLM does: times by the library's processor of what the request says of the frames."""
    run, prepared = run_in_words(tmp_path, tokenizer, positions)
    prompts = []
    for study in prepared.scans("test"):
        shown = trained_prompt(run).shown(prepared, study)
        prompts.append(encode_prompt(tokenizer, shown.grid_thw, None, shown.markers))
    pad = tokenizer.convert_tokens_to_ids(VIDEO_PAD)
    own_pads = [[-1 if each == pad else each for each in ids] for ids in prompts]
    answers = [written("ok", ids=ids) for ids in own_pads]
    with serving(*answers) as (url, asked):
        video = replace(served(url), send_as="video")
        generate_served(run, prepared, "test", tmp_path / "p.jsonl", video)
    for question, ids in zip(asked, prompts, strict=True):
        told = json.loads(question.splitlines()[-1])["media_io_kwargs"]["video"]
        assert all(isinstance(index, int) for index in told["frames_indices"])
        assert told["total_num_frames"] >= len(told["frames_indices"]) == 4
        assert librarys_prompt(tokenizer, told) == ids
    assert len({tuple(ids) for ids in prompts}) == (NUMBER if positions == "depth" else 1)


def run_in_words(
    folder: Path, tokenizer: PreTrainedTokenizerBase, positions: str
) -> tuple[ReportWriter, Prepared]:
    """A run of a family whose prompt tells depth, and scans of other depths each."""
    knobs = {
        "model": {"dtype": "float32", "positions": positions},
        "slices": {"token_side_px": 32, "frame_size_px": (64, 96)},
        "generate": GENERATE,
    }
    recipe = Recipe.model_validate(knobs)
    studies = [
        row.model_copy(
            update={"position_mm": tuple(200.0 - (3.17 + number) * each for each in range(4))}
        )
        for number, row in enumerate(STUDIES)
    ]
    frames = random_frames(NUMBER, (4, 64, 96, 3))
    prepared = write_prepared(folder / "prepared", studies, recipe, frames=frames)
    qwen = tiny_of(QWEN3_VL, tokenizer)
    return ReportWriter(write_run(folder / "run", recipe, qwen, tokenizer)), prepared


def librarys_prompt(tokenizer: PreTrainedTokenizerBase, told: dict[str, Any]) -> list[int]:
    processor = object.__new__(Qwen3VLProcessor)  # whole, it wants torchvision
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    processor.video_token = VIDEO_PAD
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    facts = {name: told[name] for name in ("fps", "frames_indices", "total_num_frames")}
    seen = {
        "video_grid_thw": torch.tensor([[2, 4, 6]]),
        "video_metadata": [VideoMetadata(**facts)],
    }
    chat = tokenizer.apply_chat_template(
        prompt_messages(), tokenize=False, add_generation_prompt=True
    )
    text = processor.replace_video_token(seen, 0)
    return list(
        tokenizer(chat.replace(f"<|vision_start|>{VIDEO_PAD}<|vision_end|>", text)).input_ids
    )


def test_what_the_server_does_not_tell_is_left_out_and_said(
    run: ReportWriter, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(run.run_dir), "--prepared", str(prepared.folder), "--engine", "openai"]
    with serving(answer(200, {"choices": [{"message": {"content": "Clear."}}]})) as (url, _):
        app([*words, "--model", "m", "--endpoint", url], result_action="return_value")
    rows = read_rows(run.run_dir / "predictions_test.jsonl", PredictionRow)
    assert {(row.num_tokens, row.finished, row.cue) for row in rows} == {(None, None, None)}
    assert "of 6 reports the server does not say whether they are whole" in capsys.readouterr().err


def test_what_a_scan_ends_in_does_not_stop_the_others(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    refused = answer(400, {"error": "too long"})
    told = r"2 of 6 have none; of PLANTED_1_a_1.nii.gz: .* 400.*too long"
    with serving(written("a"), refused, written("a"), refused, written("a")) as (url, _):
        with refusal("E_ENDPOINT", told):
            generate_served(run, prepared, "test", out, served(url))
        assert len(read_rows(out, PredictionRow)) == 4
        rows = generate_served(run, prepared, "test", out, served(url))
    assert read_rows(out, PredictionRow) == rows
    assert [row.scan_id for row in rows] == [study.scan_id for study in STUDIES]


def test_a_server_that_answers_nobody_is_left_soon(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    with serving(answer(404, {"error": "no such model"})) as (url, asked):
        with refusal("E_ENDPOINT", "6 of 6 have none"):
            generate_served(run, prepared, "test", tmp_path / "p.jsonl", served(url))
        assert len(asked) == 3


def test_no_more_are_asked_about_at_once(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    at_once, most = [0], [0]

    def count(handler: object) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        at_once[0] -= 1
        written("ok")(handler)  # type: ignore[arg-type]

    with serving(count) as (url, _):
        generate_served(run, prepared, "test", tmp_path / "p.jsonl", served(url, num_parallel=3))
    assert most[0] <= 3


def test_reports_of_another_model_or_prompt_are_not_mixed(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    with serving(written("ok")) as (url, _):
        generate_served(run, prepared, "test", out, served(url))
        for other, told in (
            (run.with_overrides(("generate.max_new_tokens=9",)), "max_new_tokens"),
            (run, "model"),
        ):
            with refusal("E_RUN_EXISTS", told):
                model = "m" if other is not run else "n"
                generate_served(other, prepared, "test", out, served(url, model))
    with serving(written("ok")) as (url, asked):  # at another address it is the same
        generate_served(run, prepared, "test", out, served(url))
        assert not asked


def test_findings_are_told_by_a_table(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "told", tokenizer, cues=True)
    rows = [",".join(["VolumeName", *FINDINGS])]
    rows += [",".join([s.volume_name, "0.9", *["0"] * 17]) for s in STUDIES]
    (tmp_path / "cues.csv").write_text("\n".join(rows))
    table = read_cue_table(tmp_path / "cues.csv")
    with serving(written("ok")) as (url, asked):
        out = tmp_path / "p.jsonl"
        written_rows = generate_served(run, prepared, "test", out, served(url), cues=table)
        assert "The image suggests: Medical material." in asked[0]
        with refusal("E_CUES", "no calibration"):
            generate_served(run, prepared, "test", tmp_path / "q.jsonl", served(url))
        plain = run_of(tmp_path / "plain", tokenizer)
        with refusal("E_CUES", "must have learned"):
            generate_served(plain, prepared, "test", tmp_path / "r.jsonl", served(url), cues=table)
    assert {row.cue for row in written_rows} == {("Medical material",)}


def test_what_no_server_does_is_refused(
    run: ReportWriter, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    held = run.with_overrides(("generate.contrast=mean",))
    nobody = served("http://127.0.0.1:9/v1")
    with refusal("E_OPTION", "generate.contrast.*--set generate.contrast=none"):
        generate_served(held, prepared, "test", Path("p"), nobody)
    deep = run_of(tmp_path / "deep", tokenizer, positions="depth")
    with refusal("E_OPTION", r"positions of its own for depth \(model.positions\), which none has"):
        generate_served(deep, prepared, "test", Path("p"), replace(nobody, send_as="video"))


def test_frames_that_may_name_a_patient_stay_here(run: ReportWriter, tmp_path: Path) -> None:
    marked = [row.model_copy(update={"warnings": ("W_BURNED_IN",)}) for row in STUDIES[:1]]
    studies: list[StudyRow] = [*marked, *STUDIES[1:]]
    prepared = write_prepared(tmp_path / "prepared", studies, RECIPE, frames=FRAMES)
    elsewhere = Served(Endpoint("http://192.0.2.1/v1", allow_remote=True), "m")
    with refusal("E_REMOTE", "1 of 6 may have text burned into"):
        generate_served(run, prepared, "test", tmp_path / "p.jsonl", elsewhere)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--engine", "openai"], "E_OPTION", "by --endpoint"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "E_OPTION", "go with --engine openai"),
        (["--allow-remote"], "E_OPTION", "go with --engine openai"),
        (["--engine", "openai", "--endpoint", "http://192.0.2.1/v1"], "E_REMOTE", "192.0.2.1"),
        (
            ["--engine", "openai", "--endpoint", "http://127.0.0.1:9", "--generator", "template"],
            *("E_OPTION", "--engine and what goes with it must go with the model"),
        ),
    ],
)
def test_options_that_do_nothing_or_harm_are_refused(
    run: ReportWriter, prepared: Prepared, options: list[str], code: str, told: str
) -> None:
    words = ["generate", str(run.run_dir), "--prepared", str(prepared.folder)]
    with refusal(code, told):
        app([*words, *options], result_action="return_value")
    assert not (run.run_dir / "predictions_test.jsonl").exists()


@dataclass
class TransformersServer:
    """The library's own server of an exported run, in a process of its own."""

    python: str
    export: Path
    port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Returns when it answers."""
        script = Path(__file__).parents[1] / "transformers_server.py"
        (self.folder / "hub").mkdir(exist_ok=True)
        environment = os.environ | {"HF_HOME": str(self.folder), "CUDA_VISIBLE_DEVICES": ""}
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, script, "serve", self.export, "--port", str(self.port)],
                stdout=log,
                stderr=log,
                env=environment,
            )
        while True:
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{self.url}/models", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def python_that_serves() -> str:
    """An interpreter with what `transformers serve` needs for Qwen2.5-VL, or a skipped test."""
    python = os.environ.get("CTSCRIBE_SERVER_PYTHON", sys.executable)
    lacks = "import importlib.util as u; print(*(n for n in %r if u.find_spec(n) is None))"
    found = subprocess.run(
        [python, "-c", lacks % (("openai", "torchvision", "fastapi", "uvicorn"),)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if found:
        pytest.skip(f"transformers serve needs {found}; CTSCRIBE_SERVER_PYTHON may name a Python")
    return python


@contextmanager
def real_server(export: Path, folder: Path) -> Iterator[TransformersServer]:
    python = python_that_serves()
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = TransformersServer(python, export, port, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.slow
def test_a_real_server_writes_with_a_model_whose_depth_is_words(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    run, prepared = run_in_words(tmp_path, tokenizer, "depth")
    export = tmp_path / "export"
    publish(run.run_dir / "best", export, "merged", run.recipe)
    with real_server(export, tmp_path / "server") as server:
        by_images = served(server.url, str(export), 2)
        rows = generate_served(run, prepared, "test", tmp_path / "p.jsonl", by_images)
    assert len({row.findings for row in rows}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("in_words", [True, False])
def test_the_processor_of_a_real_server_builds_the_runs_own_prompt(
    run: ReportWriter,
    prepared: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    in_words: bool,
) -> None:
    """The whole of it, torchvision included: no frame is scaled, every depth is ours."""
    command = [python_that_serves(), "-m", "tests.transformers_prompt"]
    if in_words:
        run, prepared = run_in_words(tmp_path / "in_words", tokenizer, "depth")
    publish(run.run_dir / "best", tmp_path / "export", "merged", run.recipe)
    prompt, scans, expected = trained_prompt(run), [], []
    for study in prepared.scans("test"):
        shown = prompt.shown(prepared, study)
        assert shown.frames is not None
        np.save(path := tmp_path / f"{study.scan_id}.npy", shown.frames.numpy())
        scans.append([str(path), fields_of_a_video(4, shown.markers)["media_io_kwargs"]["video"]])
        ids = encode_prompt(tokenizer, shown.grid_thw, None, shown.markers)
        expected.append([ids, list(shown.grid_thw)])
    asked = {"export": str(tmp_path / "export"), "chat": prompt_messages(), "scans": scans}
    found = subprocess.run(
        command,
        input=json.dumps(asked),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert json.loads(found.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
def test_a_real_server_killed_half_way_and_started_again(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    publish(run.run_dir / "best", export, "merged", run.recipe)
    with real_server(export, tmp_path / "server") as server:
        whole, out = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
        model = str(export)
        rows = generate_served(run, prepared, "test", whole, served(server.url, model, 2))
        assert len({row.findings for row in rows}) > 1
        assert {row.num_tokens for row in rows} == {None}  # its server counts otherwise

        def kill_half_way(done: int, total: int) -> None:
            if done == total // 2:
                server.kill()

        with refusal("E_ENDPOINT", "of 6 have none"):
            generate_served(
                *(run, prepared, "test", out, served(server.url, model, 2)), progress=kill_half_way
            )
        assert 3 <= len(read_rows(out, PredictionRow)) < NUMBER
        server.start()
        again = generate_served(run, prepared, "test", out, served(server.url, model, 2))
    assert again == rows
    assert out.read_bytes() == whole.read_bytes()
