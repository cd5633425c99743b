"""Greedy writing with our own position ids and a key-value cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.finding_queries import gate
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import embed


@final
@dataclass(frozen=True)
class Answer:
    """One written answer."""

    text: str
    """Without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """As chosen, without the closing ``<|im_end|>``."""
    token_log_probs: tuple[float, ...]
    """Natural log of each token's probability, in the same order."""
    finished: bool
    """False when the length limit came before ``<|im_end|>``."""


@torch.inference_mode()
def write_reports(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Int[Tensor, "_"]],
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    video_grid_thw: Int[Tensor, "batch 3"],
    position_mm: Float[Tensor, "batch slice_pairs"],
    positions: Literal["index", "depth"],
    max_new_tokens: int,
) -> list[Answer]:
    r"""Writes one answer per prompt at temperature 0, all prompts at once.

    A prompt is token ids up to and including ``<|im_start|>assistant\n``, with ``<|video_pad|>``
    repeated once per visual token; lengths may differ. The visual tokens of all volumes follow one
    another in the order of the prompts. ``positions`` is the mode of `position_ids`, which reads
    grid and millimetres; ``max_new_tokens`` includes the closing token.
    """
    device = qwen.lm_head.weight.device
    end, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
    input_ids = pad_sequence([*prompts], True, pad, padding_side="left").to(device)
    ones = [torch.ones_like(prompt) for prompt in prompts]
    mask = pad_sequence(ones, True, 0, padding_side="left").to(device)
    place = position_ids(
        qwen.config, input_ids, mask, video_grid_thw, position_mm.to(device), positions
    )
    padded = not bool(mask.all())
    cache = DynamicCache(config=qwen.config.text_config)
    gated = gate(qwen, visual_tokens.to(device), video_grid_thw)
    embeds = embed(qwen, input_ids, gated.visual_tokens)
    following = place.amax((0, 2)) + 1  # the place after the prompt's last token, per row
    chosen, log_probs = [], []
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        best, token = _likeliest(qwen, embeds, mask if padded else None, place, cache)
        chosen.append(torch.where(done, end, token))
        log_probs.append(best)
        done = done | (token == end)
        if bool(done.all()):
            break
        embeds = qwen.get_input_embeddings()(token)[:, None]
        place = (following + step)[None, :, None].expand(3, -1, 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return _collect(tokenizer, torch.stack(chosen, 1), torch.stack(log_probs, 1), end)


def _likeliest(
    qwen: Qwen2_5_VLForConditionalGeneration,
    embeds: Float[Tensor, "batch tokens hidden"],
    mask: Int[Tensor, "batch all_tokens"] | None,
    place: Int[Tensor, "3 batch tokens"],
    cache: DynamicCache,
) -> tuple[Float[Tensor, "batch"], Int[Tensor, "batch"]]:
    """Log-probability and id of each row's most likely next token; the cache grows."""
    hidden = qwen.model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=place,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1]
    best, token = qwen.lm_head(hidden).float().log_softmax(-1).max(-1)
    return best, token


def _collect(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Int[Tensor, "batch steps"],
    log_probs: Float[Tensor, "batch steps"],
    end: int,
) -> list[Answer]:
    written = []
    for tokens, scores in zip(chosen.tolist(), log_probs.tolist(), strict=True):
        finished = end in tokens
        length = tokens.index(end) if finished else len(tokens)
        written.append(
            Answer(
                text=str(tokenizer.decode(tokens[:length], skip_special_tokens=True)).strip(),
                token_ids=tuple(tokens[:length]),
                token_log_probs=tuple(scores[:length]),
                finished=finished,
            )
        )
    return written
