import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.rows import SkippedRow, StudyRow, read_rows
from ctscribe.cli.options import app
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import prepare
from ctscribe.data.prepare_volume import FORMAT
from tests.data.tree import NAMES, SLICES, VOLUME, hashes


def test_one_bad_volume_is_a_row_and_the_rest_goes_on(tree: CtRateTree, tmp_path: Path) -> None:
    bad = tree.volume_path(NAMES[1], "v2")
    bad.write_bytes(bad.read_bytes()[:-2000])
    summary = prepare(tree.root, tmp_path / "out", VOLUME, SLICES, processes=2)
    (row,) = read_rows(tmp_path / "out/skipped.jsonl", SkippedRow)
    assert (row.volume_name, row.code) == (NAMES[1], "E_TRUNCATED")
    assert row.reason.startswith(f"{NAMES[1]} must be a complete gzip file")
    assert summary.skipped_by_code == {"E_TRUNCATED": 1}
    studies = read_rows(tmp_path / "out/studies.jsonl", StudyRow)
    assert [study.volume_name for study in studies] == [NAMES[0], *NAMES[2:]]


def test_the_command_fails_while_volumes_do_unless_that_is_allowed(
    tree: CtRateTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.volume_path(NAMES[1], "v2").write_bytes(b"")
    words = ["prepare", str(tree.root), str(tmp_path / "out"), "--keep", "slices"]
    words += ["--processes", "1", "--set", "volume.spacing_mm=[6.0, 6.0, 8.0]"]
    with pytest.raises(CtscribeError, match=r"but 1 are in .*skipped\.jsonl; read") as caught:
        app(words, result_action="return_value")
    assert caught.value.code == "E_SKIPPED"
    app([*words, "--allow-failures"], result_action="return_value")
    told = capsys.readouterr().err
    assert "Preparing volumes: 4/4" in told
    assert "1 skipped: E_EMPTY 1" in told
    assert f"skipped 1 with E_EMPTY, for example: {NAMES[1]} must hold a volume" in told
    assert "3 volumes prepared (3 of them earlier), 1 skipped" in told


FULL = (
    "import resource, signal, sys\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    "from ctscribe.cli.app import main\n"
    "sys.argv = ['ctscribe', 'prepare', *sys.argv[1:], '--recipe', 'tiny',\n"
    "            '--set', 'volume.spacing_mm=[3.0, 3.0, 4.0]', '--processes', '1']\n"
    "main()"
)


def test_a_full_disk_ends_in_one_sentence_and_leaves_no_part(
    tree: CtRateTree, tmp_path: Path
) -> None:
    """Files may grow to 300 kB, so the frames' first bytes fit and the last do not."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL, str(tree.root), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (complaint,) = (line for line in ended.stderr.splitlines() if "E_WRITE" in line)
    assert "must be writable, but File too large; free some space" in complaint
    assert "Traceback" not in ended.stderr
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert left == {".lock", "ledger.sqlite", "prepare.json"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where this process may mount one."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_disk_that_is_full_or_read_only(
    tree: CtRateTree, tmp_path: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "out"
    with pytest.raises(CtscribeError, match="No space left on device; free some space") as caught:
        prepare(tree.root, out, VOLUME, SLICES)
    assert caught.value.code == "E_WRITE"
    assert not list(small_disk.rglob("*.part"))
    whole = read_json(out / "prepare.json")
    assert whole["asked"]["format"] == FORMAT
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    prepare(tree.root, tmp_path / "undisturbed", VOLUME, SLICES)
    prepare(tree.root, out, VOLUME, SLICES)
    assert hashes(out) == hashes(tmp_path / "undisturbed")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for target in (out, small_disk / "new"):
        with pytest.raises(CtscribeError, match="Read-only file system") as caught:
            prepare(tree.root, target, VOLUME, SLICES)
        assert caught.value.code == "E_WRITE"


def test_unwritable_target_stops_with_one_sentence(tree: CtRateTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "slices").write_text("in the way")
    with pytest.raises(CtscribeError, match="must be writable") as caught:
        prepare(tree.root, out, VOLUME, SLICES, keep="slices")
    assert caught.value.code == "E_WRITE"
