"""What a command ends in when nothing else ended it in a sentence."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ctscribe.cli.last_guard import explained

CLI = (sys.executable, "-m", "ctscribe.cli")
BOOM = """
from ctscribe.cli.app import app, main

@app.command
def boom() -> None:
    try:
        {}["DOE^JOHN"]
    except KeyError as error:
        raise ValueError("DOE^JOHN") from error

main()
"""


def test_an_unforeseen_error_is_one_sentence_and_a_file_without_data(tmp_path: Path) -> None:
    script = tmp_path / "boom.py"
    script.write_text(BOOM)
    answer = subprocess.run(
        [sys.executable, script, "boom"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 70
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert "a ValueError was not" in answer.stderr
    assert "[E_INTERNAL]" in answer.stderr
    (path,) = tmp_path.glob("ctscribe-error-*.txt")
    assert path.name in answer.stderr
    told = path.read_text()
    assert told.index("KeyError") < told.index("then") < told.index("ValueError")
    assert "boom.py, line 7, in boom" in told
    assert "DOE" not in told + answer.stderr
    assert str(tmp_path.parent) not in told


def test_output_that_nobody_reads_ends_quietly() -> None:
    ends = subprocess.Popen([*CLI, "recipe", "tiny"], stdout=-1, stderr=-1)
    assert ends.stdout is not None
    assert ends.stderr is not None
    ends.stdout.close()
    assert ends.stderr.read() == b""
    ends.stderr.close()
    assert ends.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_onto_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [*CLI, "recipe", "tiny"], stdout=full, stderr=-1, text=True, check=False
        )
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    assert "the output must be writable, but No space left" in answer.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "E_WRITE"),
        (OSError(errno.EROFS, "Read-only file system", "a.json"), "E_WRITE"),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "E_READ"),
        (MemoryError(), "E_MEMORY"),
    ],
)
def test_errors_of_the_machine_are_told_for_what_they_are(error: Exception, code: str) -> None:
    told, status = explained(error)
    assert (told.code, status) == (code, 1)
    assert code == "E_MEMORY" or "a.json must be" in told.sentence


def test_where_nothing_can_be_written_there_is_still_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    told, status = explained(KeyError("DOE^JOHN"))
    assert (told.code, status) == ("E_INTERNAL", 70)
    assert "no file, as none could be written" in told.sentence
