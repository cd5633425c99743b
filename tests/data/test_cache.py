from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.data.prepared import frames_path, read_frames, record_path, stem, write_frames

NAME = "train_1_a_1.nii.gz"
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 28, 56, 3), dtype=np.uint8)


def test_round_trip_is_mapped_not_read(tmp_path: Path) -> None:
    write_frames(tmp_path, NAME, FRAMES, {"volume_name": NAME})
    found = read_frames(tmp_path, NAME)
    np.testing.assert_array_equal(found, FRAMES)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert read_json(record_path(tmp_path, NAME))["volume_name"] == NAME
    assert sorted(path.name for path in (tmp_path / "slices").iterdir()) == [
        "train_1_a_1.json",
        "train_1_a_1.npy",
    ]


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", NAME, FRAMES, {})
    write_frames(tmp_path / "b", NAME, np.asfortranarray(FRAMES), {})
    for path in (frames_path, record_path):
        assert path(tmp_path / "a", NAME).read_bytes() == path(tmp_path / "b", NAME).read_bytes()


@pytest.mark.parametrize("place", [5, 60, 130, 5000, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    write_frames(tmp_path, NAME, FRAMES, {})
    path = frames_path(tmp_path, NAME)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(
        CtscribeError, match="damaged; run the stage that writes it again"
    ) as caught:
        read_frames(tmp_path, NAME)
    assert caught.value.code == "E_CACHE"


def test_missing_and_cut_frames(tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match="must exist"):
        read_frames(tmp_path, NAME)
    write_frames(tmp_path, NAME, FRAMES, {})
    path = frames_path(tmp_path, NAME)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CtscribeError, match="missing or damaged"):
        read_frames(tmp_path, NAME)
    path.unlink()
    with pytest.raises(CtscribeError, match="missing or damaged"):
        read_frames(tmp_path, NAME)


def test_pickled_arrays_are_never_opened(tmp_path: Path) -> None:
    write_frames(tmp_path, NAME, FRAMES, {})
    with frames_path(tmp_path, NAME).open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CtscribeError, match="missing or damaged"):
        read_frames(tmp_path, NAME)


def test_names() -> None:
    assert [stem(name) for name in (NAME, "a.nii", "b")] == ["train_1_a_1", "a", "b"]
