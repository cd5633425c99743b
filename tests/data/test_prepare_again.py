import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.files import read_json
from ctscribe.base.recipe import SlicesConfig
from ctscribe.base.rows import StudyRow, read_rows
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import Outcome, VolumeTask, do_task, prepare
from ctscribe.data.prepared import frames_path
from tests.data.tree import NAMES, SLICES, VOLUME
from tests.outputs import hashes
from tests.refusals import refusal


def test_running_again_redoes_only_what_changed(tree: CtRateTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(tree.root, out, VOLUME, SLICES)
    before = hashes(out)
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 4
    assert hashes(out) == before
    damaged = frames_path(out, NAMES[0])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (out / "preprocessed_npy/train_2_a_1.npy").unlink()
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 2
    assert hashes(out) == before
    source = tree.volume_path(NAMES[3], "v2")
    source.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 9))
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 3


def test_the_ledger_spares_reading_and_is_never_needed(
    tree: CtRateTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    tree.volume_path(NAMES[2], "v2").write_bytes(b"")
    prepare(tree.root, out, VOLUME, SLICES)
    before = hashes(out)
    asked = []

    def note(task: VolumeTask) -> Outcome:
        asked.append(task.name)
        return do_task(task)

    monkeypatch.setattr("ctscribe.data.prepare.do_task", note)
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 3
    assert asked == [NAMES[2]], "what failed is tried again, what is done is not even opened"
    (out / "ledger.sqlite").unlink()
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 3
    assert sorted(asked) == sorted([*NAMES, NAMES[2]])
    assert hashes(out) == before


def test_progress_starts_with_what_is_done_and_failures_are_told_by_code(
    tree: CtRateTree, tmp_path: Path
) -> None:
    tree.volume_path(NAMES[1], "v2").write_bytes(b"")
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    seen: list[object] = []
    summary = prepare(
        tree.root,
        tmp_path / "out",
        VOLUME,
        SLICES,
        keep="slices",
        progress=lambda done, total: seen.append((done, total)),
        failed=seen.append,
    )
    assert seen == [(3, 4), "E_EMPTY", (4, 4)]
    assert list(summary.examples) == ["E_EMPTY"]
    assert summary.examples["E_EMPTY"].startswith(f"{NAMES[1]} must hold a volume")
    assert read_json(tmp_path / "out/prepare.json")["result"]["examples"] == summary.examples


def test_stores_are_added_to_a_slice_cache(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    assert prepare(tree.root, tmp_path / "out", VOLUME, SLICES).num_reused == 0
    prepare(tree.root, tmp_path / "all", VOLUME, SLICES)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "all")


def test_corrected_metadata_are_used(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    path = tree.metadata_path("train")
    path.write_text(path.read_text().replace("061Y", "062Y"))
    # An age changes no voxel.
    assert prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices").num_reused == 4
    studies = read_rows(tmp_path / "out/studies.jsonl", StudyRow)
    assert [study.age_years for study in studies] == [62.0, 62.0, 62.0, 61.0]
    path.write_text(path.read_text().replace("-1024", "-1023"))
    assert prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices").num_reused == 1


def test_tables_that_cannot_be_read_leave_the_folder_to_other_settings(
    tree: CtRateTree, tmp_path: Path
) -> None:
    with refusal("E_MISSING"):
        prepare(tmp_path / "no.csv", tmp_path / "out", VOLUME, SLICES, keep="slices")
    other = SlicesConfig(num_slices=6)
    prepare(tree.root, tmp_path / "out", VOLUME, other, keep="slices")


def test_other_settings_need_another_folder(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    with refusal(
        "E_RUN_EXISTS", r"differs in slices\.frame_size_px \(\[56, 84\] there, None asked\)"
    ):
        prepare(tree.root, tmp_path / "out", VOLUME, SlicesConfig(num_slices=6), keep="slices")


SCRIPT = (
    "import sys; from pathlib import Path; from ctscribe.data.prepare import prepare\n"
    "from ctscribe.base.recipe import SlicesConfig, VolumeConfig\n"
    "if __name__ == '__main__':\n"
    "    prepare(Path(sys.argv[1]), Path(sys.argv[2]), VolumeConfig(spacing_mm=(6.0, 6.0, 8.0)),"
    " SlicesConfig(num_slices=4, windows='three', frame_size_px=(56, 84)),"
    " processes=int(sys.argv[3]))\n"
)


def start(tree: CtRateTree, out: Path, processes: int) -> "subprocess.Popen[bytes]":
    """A run in a process of its own, when it has begun to write."""
    script = tree.root.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tree.root), str(out), str(processes)]
    process = subprocess.Popen(command)
    while process.poll() is None and not (out / "prepare.json").exists():
        time.sleep(0.002)
    return process


def test_killed_at_random_moments_it_ends_the_same(tree: CtRateTree, tmp_path: Path) -> None:
    """``CTSCRIBE_KILLS=100`` does it at a hundred moments; the last ones leave workers behind."""
    takes_s = []
    for processes in (1, 2):
        process = start(tree, tmp_path / f"whole-{processes}", processes)
        begun = time.monotonic()
        assert process.wait() == 0
        takes_s.append(time.monotonic() - begun)
    whole = hashes(tmp_path / "whole-1")
    assert hashes(tmp_path / "whole-2") == whole
    random = np.random.default_rng(0)
    moments = int(os.environ.get("CTSCRIBE_KILLS", "4"))
    unfinished = 0
    for moment in range(moments):
        processes = 1 if moment < 0.75 * moments else 2
        out = tmp_path / f"out-{moment}"
        process = start(tree, out, processes)
        time.sleep(random.uniform(0, takes_s[processes - 1]))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        unfinished += hashes(out) != whole
        prepare(tree.root, out, VOLUME, SLICES)
        assert hashes(out) == whole, f"moment {moment}"
        shutil.rmtree(out)
    assert unfinished > 0
