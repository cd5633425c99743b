"""Two processes that each hold half of every weight see, learn and write what one process does."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
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
from tests.learn.train.launch import torchrun
from tests.learn.train.runs import make_recipe

# As in test_two_processes: updates of 10, 10 and 4 pairs, and processes that disagree on what to
# skip. Three scans are held out, so that one process has none of its own in the second batch.
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


@pytest.mark.slow
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
    assert "optimizer_0/__1_0.distcp" in found[1].bytes
    # beginning anew would come by update 1
    torchrun(two, tmp_path / "cut", prepared, pairs, start, sharded=True, die_at=1)
    assert_same_log(tmp_path / "two", tmp_path / "cut", 1e-6)
    assert_same_weights(tmp_path / "two", tmp_path / "cut", 1e-6)


@pytest.mark.slow
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
