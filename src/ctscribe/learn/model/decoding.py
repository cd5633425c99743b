"""Decoding with our own position ids and a key-value cache: greedy, sampled, or contrastive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from inspect import signature
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.cache import LayerState, cache_from, layer_states
from ctscribe.learn.model.finding_queries import gate_visual_tokens
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import language_inputs
from ctscribe.learn.model.tower import encode_frames, project_features
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.prompt import encode_prompt


@final
@dataclass(frozen=True)
class Answer:
    """One written answer."""

    text: str
    """Without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """As chosen, without the closing ``<|im_end|>``."""
    token_log_probs: tuple[float, ...]
    """Natural log of each token's probability given the own volume, in the same order."""
    finished: bool
    """False when the length limit came before ``<|im_end|>``."""


@final
@dataclass(frozen=True)
class Contrast:
    """The volumes of contrastive decoding, prefilled up to the question.

    A token's score is (1 + γ)·log p(own) − γ·log p(other), the latter the mean over ``num_others``
    volumes, among the tokens with p(own) ≥ α·max p(own) (Leng et al., arXiv:2311.16922).
    """

    states: tuple[LayerState, ...]
    """One per layer, each of all volumes; shorter ones are padded on the left."""
    attention_mask: Int[Tensor, "volumes tokens"]
    next_position: Int[Tensor, "volumes"]
    """Position id of the token after each volume's last."""
    patient_ids: tuple[str | None, ...]
    """Of each volume; None where it is no patient's, such as noise."""
    num_others: int
    """How many volumes each scan is contrasted with: the first that are not its own patient's."""
    weight: float
    """γ."""
    plausibility: float
    """α."""

    def volumes_for(self, patient_ids: Sequence[str | None]) -> Int[Tensor, "others scans"]:
        """Numbers of the volumes that scans of these patients are contrasted with."""
        chosen = [
            [n for n, other in enumerate(self.patient_ids) if other is None or other != patient]
            for patient in patient_ids
        ]
        return torch.tensor([row[: self.num_others] for row in chosen]).T


@final
@dataclass(frozen=True)
class _Prefilled:
    """A batch of prompts that the model has read, ready for their next token."""

    states: tuple[LayerState, ...]
    """One per layer."""
    attention_mask: Int[Tensor, "batch tokens"]
    next_position: Int[Tensor, "batch"]
    """Position id of the next token."""
    hidden: Float[Tensor, "batch width"]
    """Last hidden state of each prompt's last token."""

    def select(self, rows: Int[Tensor, "batch"]) -> "_Prefilled":
        """The same prompts in another order."""
        return _Prefilled(
            tuple(state.select(rows) for state in self.states),
            self.attention_mask[rows],
            self.next_position[rows],
            self.hidden[rows],
        )

    def concat(self, other: "_Prefilled") -> "_Prefilled":
        """Both batches as one; shorter prompts are padded on the left."""
        masks = self.attention_mask, other.attention_mask
        length = max(mask.shape[1] for mask in masks)
        return _Prefilled(
            tuple(a.concat(b) for a, b in zip(self.states, other.states, strict=True)),
            torch.cat([pad(mask, (length - mask.shape[1], 0)) for mask in masks]),
            torch.cat([self.next_position, other.next_position]),
            torch.cat([self.hidden, other.hidden]),
        )


@torch.inference_mode()
def write_reports(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Positions,
    max_new_tokens: int,
    *,
    contrast: Contrast | None = None,
    sample: torch.Generator | None = None,
) -> list[Answer]:
    """Writes one answer per volume, all as one batch.

    Special tokens are never generated, except the one that ends an answer.

    Args:
        qwen: The model.
        tokenizer: The model's.
        visuals: Of any sizes; all with stored features or all with frames.
        positions: Mode of `position_ids`.
        max_new_tokens: Longest answer, its end token included.
        contrast: For contrastive decoding. Without it the likeliest token is taken.
        sample: Generator to draw tokens with, by their probability, instead of the likeliest.
    """
    end_id, num_scans = int(tokenizer.eos_token_id), len(visuals)
    batch = _prefill_all(qwen, tokenizer, visuals, positions, contrast)
    suppressed = _suppressed_ids(tokenizer, qwen.lm_head.out_features).to(batch.hidden.device)
    cache, next_position, hidden = cache_from(batch.states), batch.next_position, batch.hidden
    mask, is_padded = batch.attention_mask, not bool(batch.attention_mask.all())
    del batch  # so that its keys and values are freed when the cache first grows
    tokens, log_probs = [], []
    done = torch.zeros(num_scans, dtype=torch.bool, device=hidden.device)
    for step in range(max_new_tokens):
        by_volume = qwen.lm_head(hidden).float().log_softmax(-1).unflatten(0, (-1, num_scans))
        token, log_prob = _next_token(by_volume, suppressed, contrast, sample)
        tokens.append(torch.where(done, end_id, token))
        log_probs.append(log_prob)
        done = done | (token == end_id)
        if bool(done.all()) or step + 1 == max_new_tokens:
            break
        inputs = _text_inputs(qwen, token.repeat(len(by_volume))[:, None])
        mask = pad(mask, (0, 1), value=1)
        place = (next_position + step)[None, :, None].expand(3, -1, 1)
        hidden = _last_hidden_state(qwen, inputs, mask if is_padded else None, place, cache)
    return _to_answers(tokenizer, torch.stack(tokens, 1), torch.stack(log_probs, 1), end_id)


def prefill_volumes(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Positions,
) -> tuple[tuple[LayerState, ...], Int[Tensor, "volumes tokens"], Int[Tensor, "volumes"]]:
    """Reads each volume's prompt up to its last visual token, which no question changes.

    Returns:
        The first three fields of `Contrast`: layer states, attention mask and next positions.
    """
    ids = [torch.tensor(encode_prompt(tokenizer, v.grid_thw, markers=v.markers)) for v in visuals]
    volumes = [prompt[: _question_start(qwen, prompt)] for prompt in ids]
    batch = _prefill(qwen, tokenizer, volumes, visuals, positions)
    return batch.states, batch.attention_mask, batch.next_position


def visual_tokens_of(
    qwen: PreTrainedModel, visuals: Sequence[Visual]
) -> Float[Tensor, "visual_tokens hidden"]:
    """Visual tokens of volumes, one after another: from stored features, or from their frames."""
    stored = [v.visual_tokens for v in visuals if v.visual_tokens is not None]
    if stored:
        return project_features(qwen, torch.cat(stored).to(qwen.lm_head.weight.device))
    return encode_frames(qwen, [v.frames for v in visuals if v.frames is not None])


def _prefill_all(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Positions,
    contrast: Contrast | None,
) -> _Prefilled:
    """The prompts of all scans and, behind them, those of the contrast: (1 + others) × scans."""
    prompts = [
        torch.tensor(encode_prompt(tokenizer, v.grid_thw, v.cue, v.markers)) for v in visuals
    ]
    batch = _prefill(qwen, tokenizer, prompts, visuals, positions)
    if contrast is None:
        return batch
    patient_ids = [visual.patient_id for visual in visuals]
    return batch.concat(_prefill_contrast(qwen, prompts, contrast, patient_ids))


def _prefill(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Int[Tensor, "_"]],
    visuals: Sequence[Visual],
    positions: Positions,
) -> _Prefilled:
    device = qwen.lm_head.weight.device
    ids, mask = _pad_left(prompts, int(tokenizer.pad_token_id), device)
    grids = torch.tensor([visual.grid_thw for visual in visuals])
    position_mm = pad_sequence([torch.tensor(v.position_mm) for v in visuals], batch_first=True)
    place = position_ids(qwen.config, ids, mask, grids, position_mm.to(device), positions)
    cache = DynamicCache(config=qwen.config.text_config)
    gated = gate_visual_tokens(qwen, visual_tokens_of(qwen, visuals), grids)
    inputs = language_inputs(qwen, ids, gated.visual_tokens)
    hidden = _last_hidden_state(qwen, inputs, _mask_if_padded(mask), place, cache)
    return _Prefilled(layer_states(cache), mask, place.amax((0, 2)) + 1, hidden)


def _prefill_contrast(
    qwen: PreTrainedModel,
    prompts: Sequence[Int[Tensor, "_"]],
    contrast: Contrast,
    patient_ids: Sequence[str | None],
) -> _Prefilled:
    """The question of each prompt after each volume it is contrasted with.

    The batch is others × scans. Questions of different lengths go through the model one length at a
    time: padding would stand between a volume and its question, where a recurrent layer reads it.
    """
    others = contrast.volumes_for(patient_ids)
    volumes = others.flatten()
    questions = [prompt[_question_start(qwen, prompt) :] for prompt in prompts] * len(others)
    lengths = torch.tensor([len(question) for question in questions])
    groups = [(lengths == length).nonzero()[:, 0] for length in sorted({*lengths.tolist()})]
    parts = [
        _ask(qwen, contrast, volumes[rows], torch.stack([questions[row] for row in rows]))
        for rows in groups
    ]
    if len(parts) == 1:
        return parts[0]
    return reduce(_Prefilled.concat, parts).select(torch.cat(groups).argsort())


def _ask(
    qwen: PreTrainedModel,
    contrast: Contrast,
    volumes: Int[Tensor, "batch"],
    questions: Int[Tensor, "batch tokens"],
) -> _Prefilled:
    """Reads one question after each of these volumes of the contrast."""
    device = qwen.lm_head.weight.device
    volumes, questions = volumes.to(device), questions.to(device)
    cache = cache_from([state.select(volumes) for state in contrast.states])
    mask = pad(contrast.attention_mask[volumes], (0, questions.shape[1]), value=1)
    place = contrast.next_position[volumes, None] + torch.arange(questions.shape[1], device=device)
    inputs, all_axes = _text_inputs(qwen, questions), place[None].expand(3, -1, -1)
    hidden = _last_hidden_state(qwen, inputs, _mask_if_padded(mask), all_axes, cache)
    return _Prefilled(layer_states(cache), mask, place[:, -1] + 1, hidden)


def _question_start(qwen: PreTrainedModel, prompt: Int[Tensor, "tokens"]) -> int:
    """Index of the first token after the last visual one."""
    return int((prompt == qwen.config.video_token_id).nonzero()[-1]) + 1


def _mask_if_padded(mask: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"] | None:
    """None where nothing is padded, which lets attention take its faster causal kernel."""
    return None if bool(mask.all()) else mask


def _pad_left(
    rows: Sequence[Int[Tensor, "_"]], pad_id: int, device: torch.device
) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """Padded token ids, and their attention mask."""
    ones = [torch.ones_like(row) for row in rows]
    ids, mask = (
        pad_sequence([*part], True, value, padding_side="left")
        for part, value in ((rows, pad_id), (ones, 0))
    )
    return ids.to(device), mask.to(device)


def _last_hidden_state(
    qwen: PreTrainedModel,
    inputs: Mapping[str, Any],
    mask: Int[Tensor, "batch all_tokens"] | None,
    place: Int[Tensor, "3 batch tokens"],
    cache: DynamicCache,
) -> Float[Tensor, "batch width"]:
    """Runs the decoder on new tokens, which the cache takes in; returns the last one's state."""
    states: Tensor = qwen.model.language_model(
        **inputs,
        attention_mask=mask,
        position_ids=place,
        **{_cache_name(type(qwen.model.language_model).forward): cache},
        use_cache=True,
    ).last_hidden_state
    return states[:, -1]


@lru_cache
def _cache_name(forward: Callable[..., Any]) -> str:
    """Name of a decoder's cache argument: ``past_key_values`` up to transformers 5.23."""
    newer = "cache" in signature(forward).parameters
    return "cache" if newer else "past_key_values"


def _text_inputs(qwen: PreTrainedModel, ids: Int[Tensor, "batch tokens"]) -> dict[str, Any]:
    """`language_inputs` of tokens among which none is visual."""
    return {"inputs_embeds": qwen.get_input_embeddings()(ids)}


def _next_token(
    log_probs: Float[Tensor, "volumes batch vocabulary"],
    suppressed: Bool[Tensor, "vocabulary"],
    contrast: Contrast | None,
    sample: torch.Generator | None,
) -> tuple[Int[Tensor, "batch"], Float[Tensor, "batch"]]:
    """Each scan's next token, and its log-probability given the scan itself.

    ``log_probs[0]`` are those given the scan itself, the others those given the contrast's volumes.
    """
    own = log_probs[0]
    allowed = own.masked_fill(suppressed, -torch.inf)
    if contrast is not None:
        least = allowed.amax(-1, keepdim=True) + torch.tensor(contrast.plausibility).log()
        score = own + contrast.weight * (own - log_probs[1:].mean(0))
        allowed = score.masked_fill(allowed < least, -torch.inf)
    if sample is None:
        token = allowed.argmax(-1)
    else:
        token = torch.multinomial(allowed.softmax(-1), 1, generator=sample)[:, 0]
    return token, own.gather(-1, token[:, None])[:, 0]


@lru_cache(maxsize=8)
def _suppressed_ids(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> Bool[Tensor, "vocabulary"]:
    """Ids that are never generated: special tokens but the end, and rows without a token."""
    suppressed = torch.arange(vocabulary) >= len(tokenizer)
    suppressed[[*tokenizer.added_tokens_decoder]] = True
    suppressed[tokenizer.eos_token_id] = False
    return suppressed


def _to_answers(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Int[Tensor, "batch steps"],
    log_probs: Float[Tensor, "batch steps"],
    end_id: int,
) -> list[Answer]:
    written = []
    for tokens, scores in zip(chosen.tolist(), log_probs.tolist(), strict=True):
        finished = end_id in tokens
        length = tokens.index(end_id) if finished else len(tokens)
        written.append(
            Answer(
                text=str(tokenizer.decode(tokens[:length], skip_special_tokens=True)).strip(),
                token_ids=tuple(tokens[:length]),
                token_log_probs=tuple(scores[:length]),
                finished=finished,
            )
        )
    return written
