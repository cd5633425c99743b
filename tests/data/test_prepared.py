"""A prepared folder as its readers open it, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import Recipe, SplitsConfig
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import prepare
from ctscribe.data.prepare_volume import write_frames
from ctscribe.data.prepared import Prepared, frames_path, read_frames, record_path, split_of, stem
from tests.data.tree import NAMES, SLICES, VOLUME
from tests.outputs import hashes
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

NAME = "train_1_a_1.nii.gz"
FRAMES = random_frames(1, (4, 28, 56, 3))[0]
# By their names both train, and the third is tested.
STUDIES = [
    study_row("train_2_a_1.nii.gz", split="validation"),
    study_row("train_3_a_1.nii.gz", source_split="valid", split="test"),
    study_row("valid_1_a_2.nii.gz", source_split="train", split="train"),
    study_row("valid_1_a_1.nii.gz", source_split="train", split="train"),
]


# The first 16 digits of `printf train_1 | sha256sum`, as a share of 16^16, are 0.025, and so on.
@pytest.mark.parametrize(
    ("patient", "fraction", "split"),
    [
        ("train_1", 0.1, "validation"),
        ("train_1", 0.02, "train"),
        ("train_2", 0.1, "train"),
        ("train_2", 0.499, "validation"),
        ("train_53", 0.38, "validation"),
        ("train_53", 0.379, "train"),
    ],
)
def test_splits_never_change_between_releases(patient: str, fraction: float, split: str) -> None:
    assert split_of(patient, "train", SplitsConfig(validation_fraction=fraction)) == split


def test_the_sources_validation_set_is_the_test_split() -> None:
    splits = SplitsConfig(validation_fraction=0.4)
    assert all(split_of(f"valid_{n}", "valid", splits) == "test" for n in range(50))


def held_out(fraction: float) -> set[str]:
    """Of 20,000 patients."""
    splits = SplitsConfig(validation_fraction=fraction)
    names = (f"train_{n}" for n in range(20_000))
    return {name for name in names if split_of(name, "train", splits) == "validation"}


def test_a_larger_fraction_only_adds_patients_and_its_share_is_near_what_was_asked_for() -> None:
    small, large = held_out(0.1), held_out(0.2)
    assert small < large
    assert 0.09 < len(small) / 20_000 < 0.11


def test_splits_are_those_of_the_rows_in_their_order(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, STUDIES)
    assert prepared.studies == STUDIES
    assert prepared.split("validation") == STUDIES[:1]
    assert prepared.split("test") == STUDIES[1:2]
    assert prepared.split("train") == STUDIES[2:]
    assert prepared.by_name == {study.volume_name: study for study in STUDIES}


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    twice = [
        study_row(f"train_1_{scan}_1.nii.gz", split=split)
        for scan, split in (("a", "train"), ("b", "validation"))
    ]
    with refusal("E_ROW", r"in one split, but has that of train_1_b_1\.nii\.gz in two"):
        _ = write_prepared(tmp_path, twice).studies


def test_a_scan_is_its_first_reconstruction(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, STUDIES)
    assert prepared.scans("train") == STUDIES[2:3]
    assert prepared.scans("test") == STUDIES[1:2]


def test_a_split_without_scans_is_told(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, STUDIES[:1])
    assert prepared.split("test") == []
    with refusal("E_EMPTY_SPLIT", r"none of the 1 volumes in .* belongs to it"):
        prepared.scans("test")


def prepare_tree(tree: CtRateTree, out: Path, fraction: float = 0.1) -> int:
    """Slices only; how many volumes an earlier run had prepared."""
    splits = SplitsConfig(validation_fraction=fraction)
    return prepare(tree.root, out, VOLUME, SLICES, splits, keep="slices").num_reused


def test_prepare_decides_the_split_once(tree: CtRateTree, tmp_path: Path) -> None:
    prepare_tree(tree, tmp_path / "out", fraction=0.2)
    assert [(study.volume_name, study.split) for study in Prepared(tmp_path / "out").studies] == [
        (NAMES[0], "validation"),
        (NAMES[1], "train"),
        (NAMES[2], "validation"),
        (NAMES[3], "test"),
    ]
    with refusal("E_RUN_EXISTS", r"splits\.validation_fraction \(0\.2 there"):
        prepare_tree(tree, tmp_path / "out", fraction=0.3)


def test_a_folder_of_0_1_is_prepared_again_without_doing_a_volume(
    tree: CtRateTree, tmp_path: Path
) -> None:
    """Its rows lacked the split, and its manifest how patients were split."""
    out = tmp_path / "out"
    prepare_tree(tree, out)
    now = hashes(out)
    rows = [json.loads(line) for line in (out / "studies.jsonl").read_text().splitlines()]
    for row in rows:
        del row["split"]
    (out / "studies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = read_json(out / "prepare.json")
    del manifest["asked"]["splits"]
    write_json(out / "prepare.json", manifest)
    with refusal("E_ROW", r"line 1 must be a StudyRow, but split: ") as caught:
        Prepared(out).split("train")
    assert "run the stage again" in caught.value.sentence
    assert prepare_tree(tree, out) == len(NAMES)
    assert hashes(out) == now


def test_other_frames_than_a_recipe_asks_for_are_refused_by_the_first_knob(tmp_path: Path) -> None:
    recipe = Recipe(volume=VOLUME, slices=SLICES)
    prepared = write_prepared(tmp_path, STUDIES, recipe)
    assert prepared.recipe_of_frames == (VOLUME, SLICES)
    assert prepared.windows == "three"
    prepared.require(recipe)
    fewer = SLICES.model_copy(update={"num_slices": 2, "windows": "single"})
    with refusal("E_PREPARED", r"in slices\.num_slices \(4 there, 2 asked\)"):
        prepared.require(Recipe(volume=VOLUME.model_copy(update={"antialias": True}), slices=fewer))


def test_slabs_are_asked_for_by_name_and_their_thickness_matters_to_them_alone(
    tmp_path: Path,
) -> None:
    plain, thick = (SLICES.model_copy(update={"slab_mm": mm}) for mm in (15.0, 20.0))
    prepared = write_prepared(tmp_path / "plain", STUDIES, Recipe(volume=VOLUME, slices=plain))
    asked = read_json(tmp_path / "plain" / "prepare.json")["asked"]["slices"]
    assert set(asked) == {"num_slices", "windows", "frame_size_px"}
    prepared.require(Recipe(volume=VOLUME, slices=thick))
    slab, thicker = (one.model_copy(update={"projection": "slab"}) for one in (plain, thick))
    with refusal("E_PREPARED", r"in slices\.projection \(None there, 'slab' asked\)"):
        prepared.require(Recipe(volume=VOLUME, slices=slab))
    slabs = write_prepared(tmp_path / "slabs", STUDIES, Recipe(volume=VOLUME, slices=slab))
    assert (prepared.projection, slabs.projection) == ("none", "slab")
    slabs.require(Recipe(volume=VOLUME, slices=slab))
    with refusal("E_PREPARED", r"in slices\.slab_mm \(15\.0 there, 20\.0 asked\)"):
        slabs.require(Recipe(volume=VOLUME, slices=thicker))


def test_rows_say_how_far_slabs_reach(tree: CtRateTree, tmp_path: Path) -> None:
    slab = SLICES.model_copy(update={"projection": "slab"})
    for name, slices in (("plain", SLICES), ("slabs", slab)):
        prepare(tree.root, tmp_path / name, VOLUME, slices, keep="slices")
    for plain, with_slabs in zip(
        *(Prepared(tmp_path / name).studies for name in ("plain", "slabs")), strict=True
    ):
        assert plain.reach_z == ()
        assert len(with_slabs.reach_z) == len(with_slabs.slice_indices) == slab.num_slices
        for index, (low, high) in zip(with_slabs.slice_indices, with_slabs.reach_z, strict=True):
            assert low <= index - 0.5
            assert index + 0.5 <= high
    record = record_path(tmp_path / "plain", NAMES[0])
    known = read_json(record)
    del known["reach_z"]  # as records were before there were slabs
    write_json(record, known)
    (tmp_path / "plain" / "ledger.sqlite").unlink()
    again = prepare(tree.root, tmp_path / "plain", VOLUME, SLICES, keep="slices")
    assert again.num_reused == len(NAMES)


def test_a_folder_whose_knobs_are_unknown_is_refused(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, STUDIES)
    manifest = read_json(tmp_path / "prepare.json")
    manifest["asked"]["slices"]["crop"] = "lungs"
    write_json(tmp_path / "prepare.json", manifest)
    with refusal("E_PREPARED", "prepared by this version, but "):
        _ = prepared.recipe_of_frames


def test_what_is_not_there_is_missed_when_it_is_asked_for(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "nowhere")
    for ask in (
        lambda: prepared.studies,
        lambda: prepared.recipe_of_frames,
        lambda: prepared.frames(STUDIES[0]),
        lambda: prepared.record(STUDIES[0]),
    ):
        with refusal("E_MISSING", "must exist"):
            ask()


def test_features_lie_apart_by_tower(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path)
    assert prepared.features("0f") == tmp_path / "features" / "0f"


def test_a_volume_is_read_from_its_store(tree: CtRateTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_tree(tree, out)
    prepared = Prepared(out)
    study = prepared.by_name[NAME]
    with refusal("E_MISSING", "as `prepare --keep all` writes it"):
        prepared.volume(study)
    prepare(tree.root, out, VOLUME, SLICES)
    volume = prepared.volume(study)
    assert volume.hu.shape == study.shape_xyz
    assert volume.hu.min() < -900
    assert volume.affine[2, 3] == pytest.approx(700.0)


def test_frames_and_their_record_are_found_by_study(tmp_path: Path) -> None:
    study = study_row(NAME)
    prepared = write_prepared(tmp_path, [study], frames=[FRAMES])
    found = prepared.frames(study)
    np.testing.assert_array_equal(found, FRAMES)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert prepared.record(study)["volume_name"] == NAME
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
    prepared = write_prepared(tmp_path, [study_row(NAME)], frames=[FRAMES])
    path = frames_path(tmp_path, NAME)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with refusal("E_CACHE", "damaged; run the stage that writes it again"):
        prepared.frames(prepared.studies[0])


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
