"""On a real cluster of two nodes on this machine, one of which is killed half-way."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.engines import ray as ray_engine
from ctscribe.data.prepare import prepare
from tests.outputs import hashes

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""Ray's own processes and sockets."""


def need_bytes(task: tuple[Path, int]) -> int:
    return 10**9


NUMBER = 8
"""Of tasks: on a busy machine one node does several before the other has started a worker."""


@pytest.fixture(scope="module")
def cluster() -> "Iterator[Cluster]":
    from ray.cluster_utils import Cluster

    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, sys.path)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


def test_what_a_killed_node_was_at_is_done_by_the_other(
    cluster: "Cluster", tmp_path: Path, doomed: ModuleType
) -> None:
    second = cluster.add_node(**NODE)
    tasks = [(tmp_path, number) for number in range(NUMBER)]
    found: list[int] = []
    killed: list[int] = []
    for result in ray_engine.work(
        doomed.slowly, tasks, None, lost=doomed.lost, need_bytes=need_bytes
    ):
        found.append(result)
        for begun in tmp_path.glob(f"*-{second.node_id}"):
            number = int(begun.name.split("-")[0])
            if not killed and 2 * number not in found:  # it is at work there
                cluster.remove_node(second, allow_graceful=False)
                os.kill(int(begun.read_text()), signal.SIGKILL)
                killed.append(number)
    assert killed
    assert sorted(found) == [2 * number for number in range(NUMBER)]
    assert len(list(tmp_path.glob(f"{killed[0]}-*"))) == 2, "it was not begun again elsewhere"


def test_prepared_volumes_are_the_same_with_a_node_killed_half_way(
    cluster: "Cluster",
    tmp_path: Path,
    scans: Path,
    knobs: tuple[VolumeConfig, SlicesConfig],
    undisturbed: dict[str, str],
) -> None:
    second = cluster.add_node(**NODE)
    done_when_killed: list[int] = []

    def kill_half_way(done: int, total: int) -> None:
        if 2 * done >= total and not done_when_killed:
            cluster.remove_node(second, allow_graceful=False)
            done_when_killed.append(done)

    out = tmp_path / "out"
    engine = ray_engine.work
    summary = prepare(scans, out, *knobs, engine=engine, processes=None, progress=kill_half_way)
    assert done_when_killed == [6]
    assert (summary.num_prepared, summary.num_reused) == (12, 0)
    assert hashes(out) == undisturbed


def test_only_the_task_that_kills_again_is_lost(
    cluster: "Cluster", tmp_path: Path, doomed: ModuleType
) -> None:
    tasks = [(tmp_path, number) for number in range(1, 6)]
    work = ray_engine.work(doomed.die, tasks, 1, lost=doomed.lost, need_bytes=need_bytes)
    assert sorted(work) == [-3, 2, 4, 8, 10]
    assert (tmp_path / "3").stat().st_size == 3


def test_what_stops_every_volume_stops_the_run(
    cluster: "Cluster", tmp_path: Path, doomed: ModuleType
) -> None:
    tasks = [(tmp_path, 1), (tmp_path, 2)]
    with pytest.raises(CtscribeError, match="must be written") as caught:
        list(ray_engine.work(doomed.refuse, tasks, 1, lost=doomed.lost, need_bytes=need_bytes))
    assert caught.value.code == "E_WRITE"


def test_without_a_cluster_the_engine_says_so(
    tmp_path: Path, doomed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(CtscribeError, match="must find a running cluster") as caught:
        list(
            ray_engine.work(
                doomed.double, [(tmp_path, 1)], None, lost=doomed.lost, need_bytes=need_bytes
            )
        )
    assert caught.value.code == "E_ENGINE"
