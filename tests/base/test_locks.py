import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ctscribe.base.files import atomic_write, write_text
from ctscribe.base.locks import many_writers, one_writer, one_writer_of
from tests.holders import held
from tests.refusals import refusal

HOLD = """
import sys
from pathlib import Path
from ctscribe.base.locks import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_in(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_holds_a_folder_is_told_and_a_dead_process_never_blocks(tmp_path: Path) -> None:
    with another_process_in(tmp_path) as process:
        told = rf"process {process.pid} of this machine is at work there since 2\d\d\d-"
        with refusal("E_BUSY", told), one_writer(tmp_path):
            raise AssertionError
        with refusal("E_BUSY", told), many_writers(tmp_path):
            raise AssertionError
        process.kill()
        process.wait()
        assert (tmp_path / ".lock").exists()
        with one_writer(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_a_stage_inside_anothers_block_is_let_in_but_no_thread(tmp_path: Path) -> None:
    with one_writer(tmp_path), one_writer(tmp_path), one_writer_of(tmp_path / "a.jsonl"):
        pass
    with held(one_writer(tmp_path)), refusal("E_BUSY"), one_writer(tmp_path):
        raise AssertionError
    assert not list(tmp_path.iterdir())


def test_many_hold_one_folder_and_the_last_takes_the_lock_away(tmp_path: Path) -> None:
    with held(many_writers(tmp_path)):
        with many_writers(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()
        with refusal("E_BUSY"), one_writer(tmp_path):
            raise AssertionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lock", [one_writer, lambda folder: one_writer_of(folder / "[a].jsonl")])
def test_what_a_killed_process_left_is_removed_and_what_is_written_stays(
    tmp_path: Path, lock: Callable[[Path], AbstractContextManager[None]]
) -> None:
    left = [tmp_path / f".[a].{end}.part" for end in ("jsonl.x", "asked.json.y")]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / ".foreign").write_bytes(b"")
    with atomic_write(tmp_path / "[a].jsonl") as file:
        file.write(b"whole")
        with lock(tmp_path):
            assert not any(path.exists() for path in left)
    assert {path.name for path in tmp_path.iterdir()} == {".foreign", "[a].jsonl"}


def test_locks_below_that_a_killed_process_left_are_removed_and_those_in_use_stay(
    tmp_path: Path,
) -> None:
    left = [tmp_path / "cell" / name for name in (".lock", ".pairs.jsonl.lock")]
    left[0].parent.mkdir()
    for path in left:
        path.write_text("")
    (tmp_path / "poetry.lock").write_text("")
    at_work = [tmp_path, tmp_path / "one", tmp_path / "shared"]
    with held(one_writer(at_work[1])), held(many_writers(at_work[2])), one_writer(tmp_path):
        assert all((folder / ".lock").exists() for folder in at_work)
    assert not any(path.exists() for path in left)
    assert (tmp_path / "poetry.lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_storage_without_locks_guards_against_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, "storage knows no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    with one_writer(tmp_path):
        write_text(tmp_path / "a", "1")
    assert (tmp_path / "a").read_text() == "1"


def test_files_beside_each_other_are_written_at_once(tmp_path: Path) -> None:
    with one_writer_of(tmp_path / "a"), one_writer_of(tmp_path / "b"):
        write_text(tmp_path / "a", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
