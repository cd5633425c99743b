from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import many_writers, one_writer
from ctscribe.base.recipe import SlicesConfig
from ctscribe.base.rows import StudyRow, read_rows
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import parse_shard, prepare
from tests.data.tree import NAMES, SLICES, VOLUME, hashes


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
    with many_writers(out), one_writer(out / "shards/1-of-2"):
        prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=(2, 2))
        for shard in ((1, 2), (1, 1)):
            with pytest.raises(CtscribeError, match="another is at work") as caught:
                prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=shard)
            assert caught.value.code == "E_BUSY"
    with one_writer(out), pytest.raises(CtscribeError, match="another is at work"):
        prepare(tree.root, out, VOLUME, SLICES, keep="slices", shard=(2, 2))
    with pytest.raises(CtscribeError, match=r"differs in slices\.frame_size_px"):
        prepare(tree.root, out, VOLUME, SlicesConfig(num_slices=6), shard=(2, 2))


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b", "1/2\n"])
def test_shards_are_written_i_of_n(text: str) -> None:
    assert parse_shard("2/8") == (2, 8)
    with pytest.raises(CtscribeError, match="for the second of eight, 2/8") as caught:
        parse_shard(text)
    assert caught.value.code == "E_SHARD"


def test_two_runs_do_not_share_a_folder(tree: CtRateTree, tmp_path: Path) -> None:
    with one_writer(tmp_path / "out"), pytest.raises(CtscribeError, match="another is at work"):
        prepare(tree.root, tmp_path / "out", VOLUME, SLICES)
