"""The volumes that reports are held against: who is drawn, what their mean is, how kept."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import GenerateConfig
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.contrast import (
    choose_volumes,
    mean_volume,
    read_volumes,
    write_volumes,
)
from ctscribe.learn.model.feature_store import FeatureStore
from ctscribe.learn.model.features import store_features
from ctscribe.learn.pairs.dataset import Visual
from tests.models import tiny_model
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared

SCANS = [
    *(study_row(f"train_{number}_a_1.nii.gz") for number in range(3)),
    study_row("train_3_a_1.nii.gz", slice_indices=(0, 1), position_mm=(0.0, -1.0)),
]


def knobs(**changes: object) -> GenerateConfig:
    return GenerateConfig.model_validate(changes)


@pytest.fixture
def store(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> FeatureStore:
    frames = [*random_frames(3, (4, 56, 56, 3)), *random_frames(1, (2, 84, 56, 3))]
    prepared = write_prepared(tmp_path / "prepared", SCANS, frames=frames)
    return store_features(tiny_model(tokenizer), prepared, SCANS, noise=True)


def test_others_are_one_more_than_are_held_against_a_scan_each_of_another_patient(
    store: FeatureStore,
) -> None:
    twice = [*SCANS, study_row("train_0_b_1.nii.gz")]
    chosen = choose_volumes(store, twice[:4], knobs(contrast="others", num_negatives=2), seed=0)
    assert len({volume.patient_id for volume in chosen}) == 3
    again = choose_volumes(store, twice[:4], knobs(contrast="others", num_negatives=2), seed=0)
    assert [v.patient_id for v in again] == [v.patient_id for v in chosen]
    with refusal("E_EMPTY_SPLIT", "needs 5 of them in the training split, but it has 4"):
        choose_volumes(store, SCANS, knobs(contrast="others", num_negatives=4), seed=0)


def test_noise_is_nobodys(store: FeatureStore) -> None:
    chosen = choose_volumes(store, SCANS[:3], knobs(contrast="noise", num_negatives=2), seed=0)
    assert [volume.patient_id for volume in chosen] == [None, None]
    first, second = (volume.visual_tokens for volume in chosen)
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


def test_the_mean_is_the_mean_and_lies_where_the_scans_lie(store: FeatureStore) -> None:
    mean = mean_volume(store, SCANS[:3])
    expected = torch.stack([store.visual_tokens(scan) for scan in SCANS[:3]]).mean(0)
    torch.testing.assert_close(mean.visual_tokens, expected)
    assert mean.grid_thw == (2, 4, 4)
    assert mean.position_mm == pytest.approx(store.visual(SCANS[0]).position_mm)
    assert mean.patient_id is None


def test_scans_of_another_grid_are_interpolated_to_the_usual_one(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flat(_: FeatureStore, study: object, noise_seed: int | None = None) -> Visual:
        pairs, rows = (1, 3) if study is SCANS[3] else (2, 2)
        tokens = torch.full((pairs, rows, 2, 5), 4.0 if study is SCANS[3] else 1.0)
        places = (30.0,) if study is SCANS[3] else (40.0, 20.0)
        return Visual((pairs, 2 * rows, 4), places, None, tokens.flatten(0, 2))

    monkeypatch.setattr(FeatureStore, "visual", flat)
    mean = mean_volume(store, SCANS)
    assert mean.grid_thw == (2, 4, 4)
    assert mean.visual_tokens is not None
    # interpolation keeps what is the same everywhere: (1 + 1 + 1 + 4) / 4
    torch.testing.assert_close(mean.visual_tokens, torch.full((8, 5), 1.75))
    assert mean.position_mm == pytest.approx((37.5, 22.5))


def test_the_mean_is_stored_once_per_set_of_scans(store: FeatureStore) -> None:
    mean_volume(store, SCANS[:3])
    (path,) = store.folder.glob("mean_*.safetensors")
    stamp = path.stat().st_mtime_ns
    mean_volume(store, SCANS[:3])
    assert path.stat().st_mtime_ns == stamp
    moved = store.prepared.folder.rename(store.prepared.folder.with_name("moved"))
    store = FeatureStore(Prepared(moved), moved / store.folder.relative_to(store.prepared.folder))
    mean_volume(store, SCANS[:3])
    assert len([*store.folder.glob("mean_*.safetensors")]) == 1
    mean_volume(store, SCANS[:2])
    assert len([*store.folder.glob("mean_*.safetensors")]) == 2


def test_what_is_kept_is_read_again_for_the_same_use_alone(tmp_path: Path) -> None:
    path = tmp_path / "contrast.safetensors"
    volumes = [
        Visual((1, 2, 2), (3.5,), None, torch.arange(4.0)[None], patient)
        for patient in ("train_1", None)
    ]
    write_volumes(path, volumes, {"for": "these weights"})
    found = read_volumes(path, {"for": "these weights"})
    assert [(v.grid_thw, v.position_mm, v.patient_id) for v in found] == [
        ((1, 2, 2), (3.5,), "train_1"),
        ((1, 2, 2), (3.5,), None),
    ]
    assert read_volumes(path, {"for": "others"}) == []
    path.write_bytes(path.read_bytes()[:-6])
    with refusal("E_FEATURES", "another checksum"):
        read_volumes(path, {"for": "these weights"})
