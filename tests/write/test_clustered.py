"""Reports on a real Ray cluster of two nodes on this machine, one of which is killed half-way."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import Recipe
from ctscribe.data.prepared import Prepared
from ctscribe.write.clustered import generate_clustered
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
RECIPE = Recipe.model_validate(
    {
        "model": {"positions": "depth", "dtype": "float32"},
        "generate": {"max_new_tokens": 16, "batch_size": 2},
    }
)
STUDIES = [study_row(f"valid_{number}_a_1.nii.gz") for number in range(31)]
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own processes and sockets
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def cluster() -> "Iterator[Cluster]":
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> ReportWriter:
    model = tiny_model(tokenizer, decided=True)
    return ReportWriter(write_run(tmp_path / "run", RECIPE, model, tokenizer))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    frames = random_frames(len(STUDIES), (4, 56, 56, 3))
    return write_prepared(tmp_path / "prepared", STUDIES, RECIPE, frames=frames)


def test_reports_are_the_same_with_a_node_killed_half_way(
    cluster: "Cluster", run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    rows = generate(run, prepared, "test", whole)
    second = cluster.add_node(**NODE)
    killed: list[int] = []

    def kill_half_way(done: int, total: int) -> None:
        if 2 * done >= total and not killed:
            cluster.remove_node(second, allow_graceful=False)
            killed.append(done)

    assert generate_clustered(run, prepared, "test", out, progress=kill_half_way) == rows
    assert len(killed) == 1
    assert out.read_bytes() == whole.read_bytes()


def test_what_is_wrong_with_the_run_is_told_as_here(
    cluster: "Cluster", run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    (run.run_dir / "best" / "model.safetensors").unlink()
    with refusal("E_WEIGHTS"):
        generate_clustered(run, prepared, "test", tmp_path / "p.jsonl")


def test_without_a_cluster_it_says_so(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with refusal("E_ENGINE", "must find a running cluster"):
        generate_clustered(run, prepared, "test", tmp_path / "p.jsonl")
