from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.qwen import answer_losses, embed
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.tower import encode_frames, patchify
from tests.learn.model.batches import ANSWERS, make_batch, random_frames


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(2, 4), columns=st.integers(2, 4), seed=st.integers(0, 99))
def test_patches_equal_the_reference_processor(rows: int, columns: int, seed: int) -> None:
    """The image processor doubles its frame in time, so a doubled slice must give the same."""
    frame = random_frames(1, 28 * rows, 28 * columns, seed)
    reference = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=10**7)(
        [Image.fromarray(frame[0].numpy())], return_tensors="pt"
    )
    patches, grid = patchify(frame.expand(2, -1, -1, -1), QWEN2_5_VL)
    assert grid.tolist() == reference["image_grid_thw"][0].tolist()
    torch.testing.assert_close(patches, reference["pixel_values"], atol=1e-6, rtol=0)


def test_patches_hold_both_slices_channel_slowest() -> None:
    frames = torch.zeros(4, 28, 56, 3, dtype=torch.uint8)
    frames[3, 15, 44, 2] = 255  # second pair, its second slice; bottom right patch but one
    patches, grid = patchify(frames, QWEN2_5_VL)
    changed = (patches != patchify(torch.zeros_like(frames), QWEN2_5_VL)[0]).nonzero()
    assert grid.tolist() == [2, 2, 4]
    # pair 1 → 8 rows on; group (0, 1) → 4 on; patch (1, 1) in it → 3 on
    # channel 2, slice 1, row 1, column 2 of the patch
    assert changed.tolist() == [[8 + 4 + 3, 2 * 392 + 196 + 1 * 14 + 2]]


@pytest.mark.parametrize("shape", [(3, 28, 28, 3), (2, 30, 28, 3), (2, 28, 14, 3)])
def test_frames_that_do_not_make_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CtscribeError, match="E_FRAMES"):
        patchify(torch.zeros(shape, dtype=torch.uint8), QWEN2_5_VL)


@pytest.mark.parametrize("size", [(112, 112), (140, 168), (224, 112)])
def test_batched_windows_equal_the_librarys_loop(
    qwen: Qwen2_5_VLForConditionalGeneration, size: tuple[int, int]
) -> None:
    frames = [random_frames(4, *size), random_frames(2, 112, 140, 1)]
    ours = encode_frames(qwen, frames)
    config = qwen.model.visual.config
    batched = config._attn_implementation
    try:
        config._attn_implementation = "sdpa"
        loop = encode_frames(qwen, frames)
    finally:
        config._attn_implementation = batched
    torch.testing.assert_close(ours, loop, atol=1e-5, rtol=1e-5)


def test_slice_pairs_never_see_each_other(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    frames = random_frames(6, 56, 84)
    whole = encode_frames(qwen, [frames])
    pairs = encode_frames(qwen, [frames[2:4], frames[4:6], frames[0:2]])
    torch.testing.assert_close(whole, pairs.roll(len(pairs) // 3, 0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("positions", ["index", "depth"])
def test_losses_equal_the_librarys_own_forward(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    positions: Literal["index", "depth"],
) -> None:
    batch = make_batch(tokenizer, ANSWERS[:1], [random_frames(4, 112, 112)])
    losses = answer_losses(qwen, batch, positions)
    patches, _ = patchify(batch["frames"][0], QWEN2_5_VL)
    ids = batch["input_ids"]
    # 68 mm a pair at 10 mm a second and two positions a second: 13.6 positions, rounded to 14
    seconds = 1.0 if positions == "index" else 7.0
    reference = qwen(
        input_ids=ids,
        attention_mask=batch["attention_mask"],
        pixel_values_videos=patches,
        video_grid_thw=batch["video_grid_thw"],
        mm_token_type_ids=(ids == qwen.config.video_token_id).int() * 2,
        second_per_grid_ts=torch.tensor([seconds]),
        labels=batch["labels"],
    ).loss
    if positions == "index":
        torch.testing.assert_close(losses.per_sample()[0], reference, atol=1e-5, rtol=1e-5)
    else:  # the library lets text overlap the slices' time; ours goes on after it
        assert float((losses.per_sample()[0] - reference).abs().detach()) > 1e-3


def test_padding_changes_no_real_tokens_loss(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    frames = [random_frames(4, 112, 112, 0), random_frames(4, 112, 140, 1)]
    together = answer_losses(qwen, make_batch(tokenizer, ANSWERS, frames, padding=9), "depth")
    for row in range(2):
        alone = answer_losses(
            qwen, make_batch(tokenizer, ANSWERS[row : row + 1], frames[row : row + 1]), "depth"
        )
        mine = together.values[together.rows == row]
        torch.testing.assert_close(mine, alone.values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.per_sample()[row], alone.values.mean())


def test_only_the_answer_has_a_loss(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    frames = [random_frames(2, 56, 56, s) for s in range(2)]
    batch = make_batch(tokenizer, ANSWERS, frames, padding=5)
    losses = answer_losses(qwen, batch, "depth")
    lengths = [len(tokenizer(answer + "<|im_end|>").input_ids) for answer in ANSWERS]
    assert losses.rows.bincount().tolist() == lengths
    supervised = batch["input_ids"][batch["labels"] != -100]
    assert qwen.config.video_token_id not in supervised
    assert tokenizer.pad_token_id not in supervised


def test_chunks_change_neither_losses_nor_gradients(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = make_batch(tokenizer, ANSWERS, [random_frames(2, 56, 56, s) for s in range(2)])
    found = []
    for rows in (1024, 7):
        monkeypatch.setattr("ctscribe.learn.model.cross_entropy.ROWS_PER_CHUNK", rows)
        qwen.zero_grad()
        losses = answer_losses(qwen, batch, "depth")
        losses.per_sample().sum().backward()  # type: ignore[no-untyped-call]
        found.append((losses.values.detach(), qwen.lm_head.weight.grad))
    qwen.zero_grad()
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_stored_visual_tokens_replace_frames(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = make_batch(tokenizer, ANSWERS, [random_frames(2, 56, 56, s) for s in range(2)])
    live = answer_losses(qwen, batch, "depth").values
    frames = batch.pop("frames")
    batch["visual_tokens"] = encode_frames(qwen, frames).detach()
    assert torch.equal(answer_losses(qwen, batch, "depth").values, live)


def test_a_visual_token_too_few_is_refused(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = make_batch(tokenizer, ANSWERS[:1], [random_frames(2, 56, 56)], padding=2)
    with pytest.raises(CtscribeError, match="E_VISUAL_TOKENS"):
        embed(qwen, batch["input_ids"], torch.zeros(3, 128))


def test_gradients_reach_the_tower_unless_it_is_frozen(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = make_batch(tokenizer, ANSWERS[:1], [random_frames(2, 56, 56)])
    answer_losses(qwen, batch, "depth").per_sample().sum().backward()  # type: ignore[no-untyped-call]
    norms = [p.grad.norm() for p in qwen.model.visual.parameters() if p.grad is not None]
    assert len(norms) == len(list(qwen.model.visual.parameters()))
    assert np.isfinite(sum(float(n) for n in norms))
    qwen.zero_grad()
