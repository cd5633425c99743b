"""Two processes, with whole models or half of every weight each, learn what one process does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import read_rows, write_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.train.arguments import require_sharding, training_arguments
from ctscribe.learn.train.callback import newest_complete
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.learn.train.stage import train
from tests.learn.train.runs import make_recipe

_SHARDED = Path(__file__).with_name("gloo_shards.py")


def torchrun(
    recipe: Recipe,
    run: Path,
    prepared: Prepared,
    pairs: Path,
    start: Path,
    *,
    sharded: bool = False,
    die_at: int | None = None,
    dies: bool = False,
) -> None:
    """Trains under torchrun, and sees to it that it ends well, or dies after update ``die_at``."""
    recipe_path = run.with_suffix(".yaml")
    recipe_path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2"]
    # behind "--" torchrun does not take --start for a short --start-method
    command += ["--", str(_SHARDED)] if sharded else ["-m", "--", "ctscribe.cli"]
    command += ["train", str(run), "--prepared", str(prepared.folder), "--pairs", str(pairs)]
    command += ["--start", str(start), "--recipe", str(recipe_path)]
    # CUDA is hidden so that the machine's GPUs, if any, do not change what is compared.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if sharded:
        environment["ACCELERATE_USE_FSDP"] = "true"
    if die_at is not None:
        environment["DIE_AT"] = str(die_at)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert (done.returncode != 0) == dies, done.stderr[-3000:]


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
# 24 pairs in updates of 10, 10 and 4. The cap lies among the negatives, and only every second
# report has a disputed sentence, so that processes disagree on what to skip.
@pytest.mark.parametrize(
    ("strategy", "learning_rate", "objective"),
    [
        ("heter", 5e-4, {"beta": 0.2, "max_loss": 5.48}),
        (
            "hard",
            2e-4,
            {
                **{"name": "logistic", "scope": "disputed", "margin": 0.05, "beta": 0.2},
                **{"beta_schedule": "steered", "target_gap": 0.5},
            },
        ),
    ],
)
def test_two_processes_equal_one(
    tmp_path: Path,
    prepared: Prepared,
    start: Path,
    pairs_of: dict[str, Path],
    strategy: str,
    learning_rate: float,
    objective: dict[str, float | str],
) -> None:
    pairs = pairs_of[strategy]
    # AdamW turns the rounding of a gradient near zero into a step of the learning rate's size;
    # a gradient lost or sent twice would still show twenty times over.
    one, two = (
        make_recipe(
            strategy,
            objective=objective,
            train={"gradient_accumulation_steps": steps, "learning_rate": learning_rate},
        )
        for steps in (10, 5)
    )
    train(tmp_path / "one", prepared, pairs, one, start)
    without = shutil.ignore_patterns("features")
    shutil.copytree(prepared.folder, tmp_path / "prepared", ignore=without)
    torchrun(two, tmp_path / "two", Prepared(tmp_path / "prepared"), pairs, start)
    asked = read_json(tmp_path / "two" / "run.json")["asked"]
    assert asked["pairs_per_update"] == 10  # 5 micro-batches of one pair on each of two processes
    rows = [read_rows(tmp_path / name / "metrics.jsonl", MetricsRow) for name in ("one", "two")]
    assert [row.step for row in rows[0]] == [row.step for row in rows[1]] == [1, 2, 3]
    assert any(0 < (row.share_capped or 0) < 1 for row in rows[0])
    assert any(0 < (row.share_skipped or 0) < 1 for row in rows[1])
    for single, double in zip(*rows, strict=True):
        values = [
            row.model_dump(exclude={"share_skipped"}, exclude_none=True) for row in (single, double)
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-4)
        assert (single.share_skipped or 0) >= (double.share_skipped or 0)
    first, second = (load_file(tmp_path / n / "best" / "model.safetensors") for n in ("one", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=1e-5, rtol=0)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        p.name for p in (tmp_path / "one").iterdir()
    )


# Updates of 10, 10 and 4 pairs again, and processes that disagree on what to skip. Three scans are
# held out, so that one process has none of its own in the second batch.
TOWER: dict[str, dict[str, Any]] = {
    "objective": {"beta": 0.2, "max_loss": 5.48},
    "model": {"freeze_tower": False},
    "train": {
        **{"learning_rate": 5e-4, "tower_learning_rate": 1e-4, "gradient_checkpointing": True},
    },
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "objective": {
        **{"name": "logistic", "scope": "disputed", "margin": 0.05, "beta": 0.2},
        **{"beta_schedule": "steered", "target_gap": 0.5},
        "label_weight": 0.1,
    },
    "model": {"tuning": "lora", "lora_r": 8, "lora_alpha": 16, "slice_attention": True},
    "train": {"learning_rate": 5e-4, "gradient_checkpointing": "cheap"},
}


def make_two(strategy: str, sections: dict[str, dict[str, Any]]) -> tuple[Recipe, Recipe]:
    """For one process and for two, whose updates take the same pairs."""
    one, two = (
        make_recipe(
            strategy,
            **{**sections, "train": {**sections["train"], "gradient_accumulation_steps": steps}},
        )
        for steps in (10, 5)
    )
    return one, two


def assert_same_log(one: Path, other: Path, tolerance: float) -> None:
    rows = [read_rows(run / "metrics.jsonl", MetricsRow) for run in (one, other)]
    assert [row.step for row in rows[0]] == [row.step for row in rows[1]] == [1, 2, 3]
    for first, second in zip(*rows, strict=True):
        values = [
            row.model_dump(exclude={"share_skipped"}, exclude_none=True) for row in (first, second)
        ]
        assert values[0] == pytest.approx(values[1], abs=tolerance, rel=tolerance)


def assert_same_weights(one: Path, other: Path, tolerance: float) -> None:
    names = [sorted(path.name for path in run.glob("best/*")) for run in (one, other)]
    assert names[0] == names[1]
    for file in one.glob("best/*.safetensors"):
        first, second = load_file(file), load_file(other / "best" / file.name)
        assert first.keys() == second.keys()
        for name, weight in first.items():
            torch.testing.assert_close(second[name], weight, atol=tolerance, rtol=0)


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
def test_shards_learn_as_one_process_and_resume_exactly(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    one, two = make_two("heter", TOWER)
    pairs = pairs_of["heter"]
    shutil.copytree(prepared.folder, tmp_path / "prepared")
    one_less = [study for study in prepared.studies if study != prepared.split("validation")[-1]]
    write_rows(tmp_path / "prepared/studies.jsonl", one_less)
    prepared = Prepared(tmp_path / "prepared")
    assert len(prepared.scans("validation")) == 3
    train(tmp_path / "one", prepared, pairs, one, start)
    torchrun(two, tmp_path / "two", prepared, pairs, start, sharded=True)
    assert read_json(tmp_path / "two/run.json")["asked"]["sharded"] is True
    for kind in ("pytorch_model_fsdp_0", "optimizer_0"):  # each process wrote its own part
        parts = (tmp_path / "two/checkpoint-3" / kind).glob("*.distcp")
        assert [part.name for part in sorted(parts)] == ["__0_0.distcp", "__1_0.distcp"]
    rows = read_rows(tmp_path / "two/metrics.jsonl", MetricsRow)
    assert any(0 < (row.share_skipped or 0) < 1 for row in rows)
    assert any(row.negative_grad_norm for row in rows)
    assert_same_log(tmp_path / "one", tmp_path / "two", 1e-5)
    assert_same_weights(tmp_path / "one", tmp_path / "two", 1e-5)
    load_model(tmp_path / "two/best")

    torchrun(two, tmp_path / "cut", prepared, pairs, start, sharded=True, die_at=2, dies=True)
    found = newest_complete(tmp_path / "cut")
    assert found is not None
    assert found[1].step == 2
    assert "optimizer_0/__1_0.distcp" in found[1].files
    # beginning anew would come by update 1
    torchrun(two, tmp_path / "cut", prepared, pairs, start, sharded=True, die_at=1)
    assert_same_log(tmp_path / "two", tmp_path / "cut", 1e-6)
    assert_same_weights(tmp_path / "two", tmp_path / "cut", 1e-6)


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
def test_prompts_are_shared_in_every_process_and_in_shards(
    tmp_path: Path, prepared: Prepared, start: Path, mutual_pairs: Path
) -> None:
    """24 pairs in updates of 8, 8 and 8; two of twelve share nothing, and some are capped."""
    one, two = (
        make_recipe(
            "heter",
            pairs={"mutual": True},
            objective={"beta": 0.2, "max_loss": 5.48},
            train={
                **{"pairs_per_device": 2, "gradient_accumulation_steps": steps},
                **{"learning_rate": 5e-4, "gradient_checkpointing": "cheap"},
            },
        )
        for steps in (4, 2)
    )
    train(tmp_path / "one", prepared, mutual_pairs, one, start)
    for name in ("whole", "shards"):
        run = tmp_path / name
        torchrun(two, run, prepared, mutual_pairs, start, sharded=name == "shards")
        rows = read_rows(run / "metrics.jsonl", MetricsRow)
        assert any(0 < (row.share_capped or 0) < 1 for row in rows)
        assert_same_log(tmp_path / "one", run, 1e-5)
        assert_same_weights(tmp_path / "one", run, 1e-5)


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
def test_adapters_and_finding_queries_learn_in_shards(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    one, two = make_two("hard", ADAPTERS)
    pairs = pairs_of["hard"]
    train(tmp_path / "one", prepared, pairs, one, start)
    torchrun(two, tmp_path / "two", prepared, pairs, start, sharded=True)
    assert_same_log(tmp_path / "one", tmp_path / "two", 1e-5)
    assert_same_weights(tmp_path / "one", tmp_path / "two", 1e-5)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "on CUDA GPUs only"),
        ({"FSDP_VERSION": "1"}, "asks for FSDP1"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "weights on the host"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, r"instead of train\.gradient_checkpointing"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "further kinds of parallelism"),
    ],
)
def test_what_shards_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in {"ACCELERATE_USE_FSDP": "true", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CtscribeError, match=sentence) as error:
        training_arguments(tmp_path, Recipe())
    assert error.value.code == "E_SHARDED"


def test_one_process_has_nobody_to_share_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr("ctscribe.learn.train.arguments._shards_here", lambda: True)
    with pytest.raises(CtscribeError, match="two processes or more, but there is one"):
        training_arguments(tmp_path, Recipe())


def test_whole_models_instead_of_shards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason for which accelerate did not do what it was asked for."""
    accelerator = Accelerator(cpu=True)
    require_sharding(accelerator, "float32")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(CtscribeError, match="E_SHARDED"):
        require_sharding(accelerator, "float32")
