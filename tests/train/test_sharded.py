"""FSDP2 on two processes computes the losses of one process, tower and merger learning too."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.model.checkpoint import load_model
from ctscribe.train.scorer import ReportScorer
from ctscribe.train.setup import training_arguments

SCRIPT = Path(__file__).with_name("sharded_steps.py")


@pytest.mark.slow
def test_a_sharded_scorer_learns_as_a_whole_one(tmp_path: Path, start: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), str(start), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    spec = importlib.util.spec_from_file_location("sharded_steps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    steps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(steps)
    qwen, _ = load_model(start)
    whole = steps.learn(ReportScorer(qwen, "depth"), int(qwen.config.video_token_id), [0, 1])
    for rank in range(2):
        shard = json.loads((tmp_path / f"{rank}.json").read_text())
        torch.testing.assert_close(
            torch.tensor(shard), torch.tensor(whole[rank::2]), atol=1e-4, rtol=1e-4
        )


def test_the_stage_refuses_to_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(CtscribeError, match="E_SHARDED"):
        training_arguments(tmp_path, Recipe())
