from copy import deepcopy
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base import workers
from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe, SlicesConfig
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepare_volume import write_frames
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model import feature_store, features
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.feature_store import FeatureStore
from ctscribe.learn.model.features import (
    frames_of,
    store_all,
    store_features,
    store_together,
)
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.tensor_files import write_tensors
from ctscribe.learn.model.tower import encode_frames, project_features
from ctscribe.scan.frames import WINDOWS, noise_frames
from tests.damage import flip_bit
from tests.learn.model.batches import make_batch, random_frames
from tests.refusals import refusal
from tests.studies import study_row, write_prepared

SIZES = [(4, 56, 84), (6, 56, 84), (4, 28, 28)]


def study(number: int, num_slices: int) -> StudyRow:
    position_mm = tuple(-10.0 * z for z in range(num_slices))
    return study_row(
        f"train_{number}_a_1.nii.gz",
        slice_indices=tuple(range(num_slices)),
        position_mm=position_mm,
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    studies = [study(number, size[0]) for number, size in enumerate(SIZES)]
    frames = [random_frames(*size, number).numpy() for number, size in enumerate(SIZES)]
    return write_prepared(tmp_path, studies, frames=frames)


def test_stored_features_equal_live_ones(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared
) -> None:
    studies = prepared.studies
    told: list[tuple[int, int]] = []
    store = store_features(qwen, prepared, studies, progress=lambda *done: told.append(done))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)
    for row, (slices, height, width) in zip(studies, SIZES, strict=True):
        frames = torch.from_numpy(np.array(prepared.frames(row)))
        with torch.inference_mode():
            live = encode_frames(qwen, [frames])
        visual = store.visual(row)
        assert visual.visual_tokens is not None
        torch.testing.assert_close(visual.visual_tokens, live, atol=1e-4, rtol=1e-4)
        assert visual.grid_thw == (slices // 2, height // 14, width // 14)
        assert visual.position_mm == tuple(-5.0 - 20 * pair for pair in range(slices // 2))
        shown = frames_of(QWEN2_5_VL, prepared, row)
        assert shown.frames is not None
        assert torch.equal(shown.frames, frames)
        assert (shown.grid_thw, shown.position_mm) == (visual.grid_thw, visual.position_mm)


def test_shards_store_their_share_and_a_tower_that_learns_none(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    tmp_path: Path,
) -> None:
    save_model(tmp_path / "start", qwen, tokenizer)
    recipe = Recipe.model_validate({"model": {"dtype": "float32"}})
    store_all(prepared, recipe, tmp_path / "start", noise=False, share=(1, 2))
    stored = [path.name for path in prepared.folder.glob("features/*/train_*")]
    assert [name.partition(".")[0] for name in stored] == ["train_1_a_1"]
    learns = Recipe.model_validate({"model": {"dtype": "float32", "freeze_tower": False}})
    with refusal("E_RECIPE", "features are stored of a tower that stays as it is"):
        store_all(prepared, learns, tmp_path / "start", noise=False)


@pytest.mark.parametrize("other_lives", [True, False])
def test_launched_processes_share_the_work_and_wait_for_files(
    qwen: Qwen2_5_VLForConditionalGeneration,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    other_lives: bool,
) -> None:
    """Process 1 of 2; where the other never stores its share, this one does in the end."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(workers, "SILENCE_S", 60.0 if other_lives else 0.1)
    studies, told = prepared.studies, list[tuple[int, int]]()
    other = Thread(target=store_features, args=(qwen, prepared, studies[::2]))

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if told == [(0, 1), (1, 1)] and other_lives:
            other.start()

    store = store_together(qwen, prepared, studies, noise=False, merged=True, progress=tell)
    assert all(store.path(each).exists() for each in studies)
    assert told[:2] == [(0, 1), (1, 1)]
    assert told[-1] == (3, 3)
    if other_lives:
        other.join()


def test_nothing_is_computed_twice_and_everything_anew_for_other_weights_or_frames(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = prepared.studies
    first = store_features(qwen, prepared, studies[:2])
    encoded: list[int] = []
    real = features._encode

    def counting(
        model: Qwen2_5_VLForConditionalGeneration, frames: list[torch.Tensor], *, merged: bool
    ) -> list[torch.Tensor]:
        encoded.append(len(frames))
        return real(model, frames, merged=merged)

    monkeypatch.setattr(features, "_encode", counting)
    assert store_features(qwen, prepared, studies) == first
    assert sum(encoded) == 1
    write_frames(prepared.folder, studies[0].volume_name, random_frames(4, 56, 84, 77).numpy(), {})
    store_features(qwen, prepared, studies)
    assert sum(encoded) == 2
    other = deepcopy(qwen)
    with torch.no_grad():
        other.model.visual.merger.ln_q.weight[0] += 1e-3
    assert store_features(other, prepared, studies).folder != first.folder
    assert sum(encoded) == 5


def fewer_noise_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (features, feature_store):
        monkeypatch.setattr(where, "NOISE_PAIRS", 8)


def test_noise_is_recombined_by_seed_at_exactly_the_studys_size(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = prepared.studies
    fewer_noise_pairs(monkeypatch)
    store = store_features(qwen, prepared, studies, noise=True)
    for row in studies:
        noise, own = store.visual(row, 5), store.visual(row)
        assert noise.visual_tokens is not None
        assert own.visual_tokens is not None
        assert noise.visual_tokens.shape == own.visual_tokens.shape
        assert noise.grid_thw == own.grid_thw
        shown = frames_of(QWEN2_5_VL, prepared, row, 5).frames
        assert shown is not None
        assert shown.shape == prepared.frames(row).shape
    again, other = store.noise_tokens(5, 3, (2, 3)), store.noise_tokens(6, 3, (2, 3))
    assert torch.equal(again, store.noise_tokens(5, 3, (2, 3)))
    assert not torch.equal(again, other)
    bank = load_file(store.bank_path((2, 3)))["features"].flatten(1, 2)
    for pair in again.reshape(3, 6, -1):
        assert any(torch.equal(pair, stored) for stored in bank)


def test_the_models_own_number_type_is_stored(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared
) -> None:
    studies = prepared.studies
    half = deepcopy(qwen).to(torch.bfloat16)
    with torch.no_grad():
        half.model.visual.merger.mlp[2].bias.fill_(1e6)  # beyond float16
    store = store_features(half, prepared, studies[:1])
    tokens = store.visual_tokens(studies[0])
    assert tokens.dtype is torch.bfloat16
    frames = torch.from_numpy(np.array(prepared.frames(studies[0])))
    with torch.inference_mode():
        assert torch.equal(tokens, encode_frames(half, [frames]))


def test_what_goes_into_the_merger_is_stored_where_the_merger_learns(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, prepared: Prepared
) -> None:
    """A size with ragged windows: the tower reorders its patches, and they must come back."""
    studies = prepared.studies
    before = store_features(qwen, prepared, studies, merged=False, noise=True)
    behind = store_features(qwen, prepared, studies)
    assert before.folder != behind.folder
    for row in studies:
        tokens, expected = (store.visual_tokens(row) for store in (before, behind))
        assert tokens.shape == (len(expected), 4 * 128)
        torch.testing.assert_close(project_features(qwen, tokens), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(project_features(qwen, expected), expected)
    frames = torch.from_numpy(np.array(prepared.frames(studies[0])))
    batch = make_batch(tokenizer, ["Findings: clear."], [frames])
    slopes = []
    for shown in ({"frames": [frames]}, {"visual_tokens": before.visual(studies[0]).visual_tokens}):
        qwen.zero_grad()
        given = {key: value for key, value in batch.items() if key != "frames"} | shown
        answer_losses(qwen, given, "depth").values.sum().backward()  # type: ignore[no-untyped-call, arg-type]
        slopes.append([weight.grad for weight in qwen.model.visual.merger.parameters()])
    qwen.zero_grad()
    for live, stored in zip(*slopes, strict=True):
        torch.testing.assert_close(live, stored, atol=1e-4, rtol=1e-4)


def test_what_is_missing_damaged_or_too_large_is_told(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared
) -> None:
    studies = prepared.studies
    store = store_features(qwen, prepared, studies[:1])
    with pytest.raises(CtscribeError, match="E_FEATURES"):
        store.visual(studies[1])
    with pytest.raises(CtscribeError, match="E_FEATURES"):
        store.noise_tokens(0, 2, (2, 3))
    path = store.path(studies[0])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CtscribeError, match="E_FEATURES"):
        store.visual(studies[0])
    large = deepcopy(qwen)
    with torch.no_grad():
        large.model.visual.merger.mlp[2].bias.fill_(torch.inf)
    with pytest.raises(CtscribeError, match="E_OVERFLOW"):
        store_features(large, prepared, studies[:1])


def test_noise_for_slabs_has_slabs(
    qwen: Qwen2_5_VLForConditionalGeneration, tmp_path: Path
) -> None:
    """In the frames for a tower that learns, and in the bank for one that does not."""
    slices = SlicesConfig(windows="three", projection="slab")
    row, size = study(0, 4), (4, 56, 84)
    frames = [random_frames(*size, 0).numpy()]
    prepared = write_prepared(tmp_path, [row], Recipe(slices=slices), frames=frames)
    expected = noise_frames(5, *size[:1], size[1:], WINDOWS["three"], "slab")
    shown = frames_of(QWEN2_5_VL, prepared, row, noise_seed=5).frames
    assert shown is not None
    np.testing.assert_array_equal(shown.numpy(), expected)
    store = store_features(qwen, prepared, [row], noise=True)
    first = noise_frames(0, 2, size[1:], WINDOWS["three"], "slab")
    bank = load_file(store.bank_path((2, 3)))["features"]
    with torch.inference_mode():
        live = encode_frames(qwen, [torch.from_numpy(first)])
    torch.testing.assert_close(bank[0].flatten(0, 1), live, atol=1e-4, rtol=1e-4)


def opened(store: FeatureStore) -> FeatureStore:
    """The store as another process opens it."""
    return FeatureStore(store.prepared, store.folder)


@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 0.999])
def test_a_flipped_bit_in_stored_features_is_one_sentence(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared, at: float
) -> None:
    row = prepared.studies[0]
    store = store_features(qwen, prepared, [row])
    flip_bit(store.path(row), at)
    with refusal("E_FEATURES", "must be there and as it was written"):
        opened(store).visual(row)


def test_a_flipped_bit_in_the_noise_is_one_sentence(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer_noise_pairs(monkeypatch)
    row = prepared.studies[0]
    store = store_features(qwen, prepared, [row], noise=True)
    flip_bit(store.bank_path((2, 3)))
    with refusal("E_FEATURES"):
        opened(store).visual(row, 5)


def test_features_of_something_else_are_refused(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared: Prepared
) -> None:
    one, two, _ = prepared.studies
    store = store_features(qwen, prepared, [one, two])
    path, whole = store.path(one), store.path(one).read_bytes()
    path.write_bytes(store.path(two).read_bytes())
    with refusal("E_FEATURES", "it holds those of something else"):
        opened(store).visual(one)
    tokens = load_file(store.path(two))
    write_tensors(path, tokens, store.facts(path))  # as if it were its own
    with refusal("E_FEATURES", r"it holds \(3, 2, 3, 128\)"):
        opened(store).visual(one)
    save_file(tokens, path)
    with refusal("E_FEATURES"):
        opened(store).visual(one)
    path.write_bytes(whole)
    assert opened(store).visual(one).grid_thw == (2, 4, 6)
