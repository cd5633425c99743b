"""The training command on two processes of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from ctscribe.base.recipe import Recipe
from ctscribe.data.prepared import Prepared

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
