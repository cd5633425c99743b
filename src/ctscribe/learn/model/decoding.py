"""Writing with our own position ids and a key-value cache: greedily, sampled, or under contrast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.finding_queries import gate
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import language_inputs
from ctscribe.learn.model.tower import encode_frames, merge
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.prompt import encode_prompt

_ROOM = 128
"""Tokens by which a cache grows at a time."""


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
    """Other volumes, read once up to the question, against which every next token is held.

    A token's score is (1 + γ)·log p(own) − γ·log p(other), the latter the mean over ``num_others``
    volumes, among the tokens with p(own) ≥ α·max p(own) (Leng et al., arXiv:2311.16922).
    """

    keys: tuple[Float[Tensor, "volumes heads tokens width"], ...]
    """One per layer; a shorter volume is padded on the left."""
    values: tuple[Float[Tensor, "volumes heads tokens width"], ...]
    mask: Int[Tensor, "volumes tokens"]
    following: Int[Tensor, "volumes"]
    """The place after each volume's last token."""
    patients: tuple[str | None, ...]
    """Whose each volume is; None for nobody's."""
    num_others: int
    """For each scan, the first so many that are not its own patient's."""
    weight: float
    """γ."""
    plausibility: float
    """α."""

    def others(self, patients: Sequence[str | None]) -> Int[Tensor, "others scans"]:
        """Numbers of the volumes that stand against each of these patients' scans."""
        chosen = [
            [n for n, other in enumerate(self.patients) if other is None or other != patient]
            for patient in patients
        ]
        return torch.tensor([row[: self.num_others] for row in chosen]).T


@final
class _Roomy(DynamicLayer):  # type: ignore[misc]  # untyped in the library
    """Keys and values with room for more: a new token is copied alone and not with all before."""

    keys: Tensor
    values: Tensor
    _rooms: tuple[Tensor, ...]

    @staticmethod
    def of(layer: DynamicLayer) -> "_Roomy":
        """The same keys and values, ready to grow."""
        roomy = _Roomy()
        roomy.lazy_initialization(layer.keys, layer.values)
        roomy.keys, roomy.values = layer.keys, layer.values
        roomy._rooms = (layer.keys, layer.values)
        return roomy

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Puts what is new behind what is there; returns all."""
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        if stop > self._rooms[0].shape[2]:
            self._rooms = tuple(
                pad(held, (0, 0, 0, stop + _ROOM - start)) for held in (self.keys, self.values)
            )
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:stop] = new
        self.keys, self.values = (room[:, :, :stop] for room in self._rooms)
        return self.keys, self.values


@final
@dataclass
class _Rows:
    """Prompts that the model has read, one a row, ready for their next token."""

    cache: DynamicCache
    mask: Int[Tensor, "rows tokens"]
    following: Int[Tensor, "rows"]
    """The place of the next token."""
    hidden: Float[Tensor, "rows width"]
    """Of each prompt's last token."""


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
    """Writes one answer per volume, all at once; no special token but the closing one.

    Args:
        qwen: The model.
        tokenizer: Its own.
        visuals: Of any sizes; all with features or all with frames.
        positions: Mode of `position_ids`.
        max_new_tokens: Longest answer, its closing token included.
        contrast: What the volumes are held against; None writes the likeliest token.
        sample: Draws every token by its probability instead.
    """
    end, barred = int(tokenizer.eos_token_id), _barred(tokenizer, qwen.lm_head.out_features)
    barred = barred.to(qwen.lm_head.weight.device)
    prompts = [
        torch.tensor(encode_prompt(tokenizer, v.grid_thw, v.cue, v.markers)) for v in visuals
    ]
    rows = _read_prompts(qwen, tokenizer, prompts, visuals, positions)
    if contrast is not None:
        patients = [visual.patient_id for visual in visuals]
        rows = _together(rows, _read_others(qwen, tokenizer, prompts, contrast, patients))
    rows.cache.layers = [_Roomy.of(layer) for layer in rows.cache.layers]
    padded = not bool(rows.mask.all())
    chosen, log_probs = [], []
    done = torch.zeros(len(visuals), dtype=torch.bool, device=barred.device)
    for step in range(max_new_tokens):
        logits = qwen.lm_head(rows.hidden).float().log_softmax(-1)
        by_volume = logits.unflatten(0, (-1, len(visuals)))
        token, log_prob = _choose(by_volume, barred, contrast, sample)
        chosen.append(torch.where(done, end, token))
        log_probs.append(log_prob)
        done = done | (token == end)
        if bool(done.all()) or step + 1 == max_new_tokens:
            break
        inputs = _text(qwen, token.repeat(len(by_volume))[:, None])
        rows.mask = pad(rows.mask, (0, 1), value=1)
        place = (rows.following + step)[None, :, None].expand(3, -1, 1)
        rows.hidden = _last(qwen, inputs, rows.mask if padded else None, place, rows.cache)
    return _collect(tokenizer, torch.stack(chosen, 1), torch.stack(log_probs, 1), end)


def read_volumes(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Positions,
) -> tuple[DynamicCache, Int[Tensor, "volumes tokens"], Int[Tensor, "volumes"]]:
    """Keys and values of prompts up to their last visual token, which depend on nothing else.

    Returns:
        The cache; which of its tokens are real, for shorter volumes are padded on the left; and
        the place after each volume's last token.
    """
    ids = [torch.tensor(encode_prompt(tokenizer, v.grid_thw, markers=v.markers)) for v in visuals]
    upto = [prompt[: _num_before_question(qwen, prompt)] for prompt in ids]
    rows = _read_prompts(qwen, tokenizer, upto, visuals, positions)
    return rows.cache, rows.mask, rows.following


def visual_tokens_of(
    qwen: PreTrainedModel, visuals: Sequence[Visual]
) -> Float[Tensor, "visual_tokens hidden"]:
    """Visual tokens of volumes, one after another: from stored features, or from their frames."""
    stored = [v.visual_tokens for v in visuals if v.visual_tokens is not None]
    if stored:
        return merge(qwen, torch.cat(stored).to(qwen.lm_head.weight.device))
    return encode_frames(qwen, [v.frames for v in visuals if v.frames is not None])


def _read_prompts(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Int[Tensor, "_"]],
    visuals: Sequence[Visual],
    positions: Positions,
) -> _Rows:
    device = qwen.lm_head.weight.device
    ids, mask = _pad_left(prompts, int(tokenizer.pad_token_id), device)
    grids = torch.tensor([visual.grid_thw for visual in visuals])
    millimetres = pad_sequence([torch.tensor(v.position_mm) for v in visuals], batch_first=True)
    place = position_ids(qwen.config, ids, mask, grids, millimetres.to(device), positions)
    cache = DynamicCache(config=qwen.config.text_config)
    gated = gate(qwen, visual_tokens_of(qwen, visuals), grids)
    inputs = language_inputs(qwen, ids, gated.visual_tokens)
    hidden = _last(qwen, inputs, mask if not bool(mask.all()) else None, place, cache)
    return _Rows(cache, mask, place.amax((0, 2)) + 1, hidden)


def _read_others(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Int[Tensor, "_"]],
    contrast: Contrast,
    patients: Sequence[str | None],
) -> _Rows:
    """Each prompt's question once more, behind each of the other volumes: others × scans rows."""
    device = qwen.lm_head.weight.device
    others = contrast.others(patients)
    which = others.flatten().to(device)
    questions = [prompt[_num_before_question(qwen, prompt) :] for prompt in prompts]
    ids, asked = _pad_left(questions * len(others), int(tokenizer.pad_token_id), device)
    cache = DynamicCache(config=qwen.config.text_config)
    for layer, (keys, values) in enumerate(zip(contrast.keys, contrast.values, strict=True)):
        cache.update(keys[which], values[which], layer)
    mask = torch.cat([contrast.mask[which], asked], dim=1)
    start = contrast.following[which, None]
    place = ((start + asked.cumsum(1) - 1) * asked)[None].expand(3, -1, -1)
    hidden = _last(qwen, _text(qwen, ids), mask if not bool(mask.all()) else None, place, cache)
    return _Rows(cache, mask, start[:, 0] + asked.sum(1), hidden)


def _num_before_question(qwen: PreTrainedModel, prompt: Int[Tensor, "tokens"]) -> int:
    return int((prompt == qwen.config.video_token_id).nonzero()[-1]) + 1


def _together(first: _Rows, second: _Rows) -> _Rows:
    """Both as rows of one batch, the shorter prompts padded on the left."""
    length = max(first.mask.shape[1], second.mask.shape[1])
    cache = DynamicCache()
    layers = zip(first.cache.layers, second.cache.layers, strict=True)
    for number, pair in enumerate(layers):
        keys, values = (
            torch.cat([pad(s, (0, 0, length - s.shape[2], 0)) for s in states])
            for states in ([layer.keys for layer in pair], [layer.values for layer in pair])
        )
        cache.update(keys, values, number)
    masks = [pad(rows.mask, (length - rows.mask.shape[1], 0)) for rows in (first, second)]
    following, hidden = (
        torch.cat([getattr(rows, name) for rows in (first, second)])
        for name in ("following", "hidden")
    )
    return _Rows(cache, torch.cat(masks), following, hidden)


def _pad_left(
    rows: Sequence[Int[Tensor, "_"]], pad_id: int, device: torch.device
) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
    """Token ids, and 1 where they are no padding."""
    ones = [torch.ones_like(row) for row in rows]
    ids, mask = (
        pad_sequence([*part], True, value, padding_side="left")
        for part, value in ((rows, pad_id), (ones, 0))
    )
    return ids.to(device), mask.to(device)


def _last(
    qwen: PreTrainedModel,
    inputs: Mapping[str, Any],
    mask: Int[Tensor, "rows all_tokens"] | None,
    place: Int[Tensor, "3 rows tokens"],
    cache: DynamicCache,
) -> Float[Tensor, "rows width"]:
    """Hidden state of each row's last token; the cache grows."""
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
    """What a decoder calls its cache: ``past_key_values`` up to transformers 5.23."""
    newer = "cache" in signature(forward).parameters
    return "cache" if newer else "past_key_values"


def _text(qwen: PreTrainedModel, ids: Int[Tensor, "rows tokens"]) -> dict[str, Any]:
    """What the language model reads where no volume is."""
    return {"inputs_embeds": qwen.get_input_embeddings()(ids)}


def _choose(
    log_probs: Float[Tensor, "volumes rows vocabulary"],
    barred: Bool[Tensor, "vocabulary"],
    contrast: Contrast | None,
    sample: torch.Generator | None,
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Each row's next token and its log-probability given the own volume, which is the first."""
    own = log_probs[0]
    allowed = own.masked_fill(barred, -torch.inf)
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
def _barred(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Bool[Tensor, "vocabulary"]:
    """Ids that are no words: special tokens but the closing one, and rows without a token."""
    barred = torch.arange(vocabulary) >= len(tokenizer)
    barred[[*tokenizer.added_tokens_decoder]] = True
    barred[tokenizer.eos_token_id] = False
    return barred


def _collect(
    tokenizer: PreTrainedTokenizerBase,
    chosen: Int[Tensor, "rows steps"],
    log_probs: Float[Tensor, "rows steps"],
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
