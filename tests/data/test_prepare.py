import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.locks import many_writers, one_writer
from ctscribe.base.recipe import SlicesConfig
from ctscribe.base.rows import SkippedRow, StudyRow, read_rows
from ctscribe.cli.app import app
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import parse_shard, prepare
from ctscribe.data.prepare_volume import FORMAT
from ctscribe.data.prepared import read_frames
from ctscribe.scan.stores import read_normalised
from tests.data.tree import NAMES, SLICES, VOLUME
from tests.dicom import on_slice, write_series
from tests.holders import held
from tests.outputs import hashes
from tests.refusals import refusal
from tests.scans import coarse_chest


def test_rows_are_complete_and_in_order(tree: CtRateTree, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    summary = prepare(
        tree.root, out, VOLUME, SLICES, progress=lambda done, total: seen.append((done, total))
    )
    studies = read_rows(out / "studies.jsonl", StudyRow)
    assert [study.volume_name for study in studies] == NAMES
    assert seen == [(done, 4) for done in range(5)]
    assert (summary.num_prepared, summary.num_skipped, summary.num_reused) == (4, 0, 0)
    third = studies[2]
    assert third.findings == "Findings of train_1."
    assert third.impression == ""
    assert third.labels == (1,) * 18
    assert (third.patient_id, third.scan_id, third.source_split) == (
        "train_10",
        "train_10_a",
        "train",
    )
    assert (third.manufacturer, third.sex, third.age_years) == ("PNMS", "F", 61.0)
    assert third.shape_xyz == (64, 56, 40)
    assert len(third.slice_indices) == len(third.position_mm) == 4
    for index, mm in zip(third.slice_indices, third.position_mm, strict=True):
        assert mm == pytest.approx(702.0 + 8 * index)
    assert read_frames(out, third.volume_name).shape == (4, 56, 84, 3)
    assert read_normalised(out, "train_10_a_1").shape == (40, 64, 56)
    assert read_json(out / "prepare.json")["result"]["num_prepared"] == 4


def test_slices_only_gives_the_same_frames(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "all", VOLUME, SLICES)
    prepare(tree.root, tmp_path / "slices", VOLUME, SLICES, keep="slices")
    few, many = hashes(tmp_path / "slices"), hashes(tmp_path / "all")
    assert not (tmp_path / "slices/preprocessed").exists()
    assert few.items() <= many.items()
    assert len(few) == 3 + 2 * 4
    assert len(many) == 3 + 5 * 4


def test_v1_gives_the_same_frames_as_v2(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "v2", VOLUME, SLICES, keep="slices")
    for name in NAMES:
        fixed = tree.volume_path(name, "v2")
        raw = np.asarray(nib.load(fixed).dataobj) + np.int16(1024)
        path = tree.volume_path(name, "v1")
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(raw, None), path)
        fixed.unlink()
    prepare(tree.root, tmp_path / "v1", VOLUME, SLICES, keep="slices")
    for name in NAMES:
        np.testing.assert_array_equal(
            read_frames(tmp_path / "v1", name), read_frames(tmp_path / "v2", name)
        )


def test_the_grid_is_written_beside_the_array(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES)
    for sidecar in ("slices/train_1_a_1.json", "preprocessed_npy/train_1_a_1.json"):
        told = read_json(tmp_path / "out" / sidecar)
        assert "half-pixel (align_corners=False)" in told["grid"]
        assert told["antialias"] is False
        source = tree.volume_path(NAMES[0], "v2")
        assert told["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        assert len(told["request"]) == 64


def test_disagreeing_affines_need_a_decision(tree: CtRateTree, tmp_path: Path) -> None:
    path = tree.volume_path(NAMES[0], "v2")
    image = nib.load(path)
    wrong = image.affine.copy()
    wrong[2, 2] = 5.0
    image.set_qform(wrong, code=1)
    image.set_sform(image.affine, code=1)
    nib.save(image, path)
    refused = prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    assert refused.skipped_by_code == {"E_GEOMETRY_CONFLICT": 1}
    depths = []
    for prefer in ("sform", "qform"):
        prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices", prefer=prefer)
        depths.append(read_rows(tmp_path / "out/studies.jsonl", StudyRow)[0].shape_xyz[2])
    assert depths == [40, 25]


def test_all_reconstructions_on_request(tree: CtRateTree, tmp_path: Path) -> None:
    second = "train_1_a_2.nii.gz"
    first_path = tree.volume_path(NAMES[0], "v2")
    tree.volume_path(second, "v2").write_bytes(first_path.read_bytes())
    for path in (
        tree.metadata_path("train"),
        tree.reports_path("train"),
        tree.labels_path("train"),
    ):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, lines[1].replace(NAMES[0], second)]))
    out = tmp_path / "out"
    assert prepare(tree.root, out, VOLUME, SLICES, keep="slices").num_prepared == 4
    summary = prepare(tree.root, out, VOLUME, SLICES, keep="slices", reconstructions="all")
    assert (summary.num_prepared, summary.num_reused) == (5, 4)
    studies = read_rows(out / "studies.jsonl", StudyRow)
    assert [study.volume_name for study in studies[:2]] == [NAMES[0], second]
    assert studies[0].scan_id == studies[1].scan_id


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    chest = coarse_chest()
    nib.save(nib.Nifti1Image(chest.hu, chest.affine), folder / "a.nii.gz")
    nib.save(nib.Nifti1Image(chest.hu[::-1].copy(), chest.affine), folder / "b.nii")
    path = folder / "scans.csv"
    path.write_text(
        "volume,patient,scan,split,findings,impression,age\n"
        "a.nii.gz,P1,P1 first,train,Heart normal.,Normal.,61\n"
        "b.nii,P2,P2/scan,valid,Effusion.,Effusion.,\n"
        "c.nii,P3,P3,valid,Effusion.,Effusion.,\n"
    )
    return path


def test_own_scans(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = prepare(manifest, out, VOLUME, SLICES)
    assert (summary.num_prepared, summary.skipped_by_code) == (2, {"E_MISSING": 1})
    first, second = read_rows(out / "studies.jsonl", StudyRow)
    assert (first.volume_name, first.scan_id, first.patient_id) == ("P1-first", "P1 first", "P1")
    assert (first.source_split, first.age_years, first.labels) == ("train", 61.0, None)
    assert (second.volume_name, second.source_split) == ("P2-scan", "valid")
    assert read_frames(out, "P2-scan").shape == (4, 56, 84, 3)
    assert read_normalised(out, "P1-first").shape == (40, 64, 56)
    assert prepare(manifest, out, VOLUME, SLICES).num_reused == 2


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
    words = [
        "prepare",
        str(tree.root),
        str(tmp_path / "out"),
        "--keep",
        "slices",
        "--recipe",
        "tiny",
    ]
    words += ["--processes", "1", "--set", "volume.spacing_mm=[6.0, 6.0, 8.0]"]
    with refusal("E_SKIPPED", r"but 1 are in .*skipped\.jsonl; read"):
        app(words, result_action="return_value")
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
    assert left == {"ledger.sqlite", "prepare.json"}


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
    with refusal("E_WRITE", "No space left on device; free some space"):
        prepare(tree.root, out, VOLUME, SLICES)
    assert not list(small_disk.rglob("*.part"))
    whole = read_json(out / "prepare.json")
    assert whole["asked"]["format"] == FORMAT
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    prepare(tree.root, tmp_path / "undisturbed", VOLUME, SLICES)
    prepare(tree.root, out, VOLUME, SLICES)
    assert hashes(out) == hashes(tmp_path / "undisturbed")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for target in (out, small_disk / "new"):
        with refusal("E_WRITE", "Read-only file system"):
            prepare(tree.root, target, VOLUME, SLICES)


def test_unwritable_target_stops_with_one_sentence(tree: CtRateTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "slices").write_text("in the way")
    with refusal("E_WRITE", "must be writable"):
        prepare(tree.root, out, VOLUME, SLICES, keep="slices")


def test_processes_change_nothing(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "one", VOLUME, SLICES)
    prepare(tree.root, tmp_path / "two", VOLUME, SLICES, processes=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_shards_together_do_what_one_run_does(tree: CtRateTree, tmp_path: Path) -> None:
    tree.volume_path(NAMES[1], "v2").unlink()
    prepare(tree.root, tmp_path / "one", VOLUME, SLICES)
    out = tmp_path / "out"
    for index, names in ((2, NAMES[2:3]), (1, [NAMES[0], NAMES[3]])):
        summary = prepare(tree.root, out, VOLUME, SLICES, shard=(index, 2))
        assert (summary.num_prepared, summary.num_skipped) == (len(names), int(index == 1))
        studies = read_rows(out / f"shards/{index}-of-2/studies.jsonl", StudyRow)
        assert [study.volume_name for study in studies] == names
        assert not (out / "studies.jsonl").exists()
    assert prepare(tree.root, out, VOLUME, SLICES).num_reused == 3
    found = {name: sha for name, sha in hashes(out).items() if not name.startswith("shards/")}
    assert found == hashes(tmp_path / "one")


def test_shards_run_at_once_but_not_beside_a_whole_run(tree: CtRateTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held(many_writers(out)), held(one_writer(out / "shards/1-of-2")):
        prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=(2, 2))
        for shard in ((1, 2), (1, 1)):
            with refusal("E_BUSY", "is at work there since"):
                prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=shard)
    with held(one_writer(out)), pytest.raises(CtscribeError, match="is at work there since"):
        prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=(2, 2))
    with pytest.raises(CtscribeError, match=r"differs in slices\.frame_size_px"):
        prepare(tree.root, out, VOLUME, SlicesConfig(num_slices=6), shard=(2, 2))


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b", "1/2\n"])
def test_shards_are_written_i_of_n(text: str) -> None:
    assert parse_shard("2/8") == (2, 8)
    with refusal("E_SHARD", "for the second of eight, 2/8"):
        parse_shard(text)


def test_two_runs_do_not_share_a_folder(tree: CtRateTree, tmp_path: Path) -> None:
    with (
        held(one_writer(tmp_path / "out")),
        pytest.raises(CtscribeError, match="is at work there since"),
    ):
        prepare(tree.root, tmp_path / "out", VOLUME, SLICES)


def test_another_series_is_prepared_anew(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "a", on_slice(None, SeriesNumber=5), series="1.2.9", slices=range(22))
    manifest, out = tmp_path / "scans.csv", tmp_path / "out"

    def chosen(cell: str, series: str | None) -> int:
        row = f"volume,patient,scan,report,series\na,P1,S1,Clear.,{cell}\n"
        manifest.write_text(row, encoding="utf-8")
        prepare(manifest, out, VOLUME, SLICES, keep="slices", series=series)
        details = read_json(out / "slices" / "S1.json")["source_details"]
        return int(details["series"]["chosen"]["num_slices"])

    assert [chosen("", None), chosen("", "5"), chosen("4", "5"), chosen("5", None)] == [
        24,
        22,
        24,
        22,
    ]
