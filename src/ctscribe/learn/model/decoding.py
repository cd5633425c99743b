"""Writing with our own position ids and a key-value cache: greedily, sampled, or under contrast."""

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
from ctscribe.learn.model.cache import Memory, cache_of, memories_of
from ctscribe.learn.model.finding_queries import gate
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import language_inputs
from ctscribe.learn.model.tower import encode_frames, merge
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
    """Other volumes, read once up to the question, against which every next token is held.

    A token's score is (1 + γ)·log p(own) − γ·log p(other), the latter the mean over ``num_others``
    volumes, among the tokens with p(own) ≥ α·max p(own) (Leng et al., arXiv:2311.16922).
    """

    memories: tuple[Memory, ...]
    """One per layer; a shorter volume is padded on the left."""
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
@dataclass(frozen=True)
class _Rows:
    """Prompts that the model has read, one a row, ready for their next token."""

    memories: tuple[Memory, ...]
    """One per layer."""
    mask: Int[Tensor, "rows tokens"]
    following: Int[Tensor, "rows"]
    """The place of the next token."""
    hidden: Float[Tensor, "rows width"]
    """Of each prompt's last token."""

    def take(self, rows: Int[Tensor, "rows"]) -> "_Rows":
        """The same in another order."""
        memories = tuple(memory.take(rows) for memory in self.memories)
        return _Rows(memories, self.mask[rows], self.following[rows], self.hidden[rows])

    def above(self, other: "_Rows") -> "_Rows":
        """Both as rows of one batch, the shorter prompts padded on the left."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        return _Rows(
            tuple(a.above(b) for a, b in zip(self.memories, other.memories, strict=True)),
            torch.cat([pad(rows.mask, (length - rows.mask.shape[1], 0)) for rows in (self, other)]),
            torch.cat([self.following, other.following]),
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
        rows = rows.above(_read_others(qwen, prompts, contrast, patients))
    cache, following = cache_of(rows.memories), rows.following
    mask, hidden, padded = rows.mask, rows.hidden, not bool(rows.mask.all())
    del rows  # the cache grows by copies, beside which what it was made of would stay
    chosen, log_probs = [], []
    done = torch.zeros(len(visuals), dtype=torch.bool, device=barred.device)
    for step in range(max_new_tokens):
        logits = qwen.lm_head(hidden).float().log_softmax(-1)
        by_volume = logits.unflatten(0, (-1, len(visuals)))
        token, log_prob = _choose(by_volume, barred, contrast, sample)
        chosen.append(torch.where(done, end, token))
        log_probs.append(log_prob)
        done = done | (token == end)
        if bool(done.all()) or step + 1 == max_new_tokens:
            break
        inputs = _text(qwen, token.repeat(len(by_volume))[:, None])
        mask = pad(mask, (0, 1), value=1)
        place = (following + step)[None, :, None].expand(3, -1, 1)
        hidden = _last(qwen, inputs, mask if padded else None, place, cache)
    return _collect(tokenizer, torch.stack(chosen, 1), torch.stack(log_probs, 1), end)


def read_volumes(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Positions,
) -> tuple[tuple[Memory, ...], Int[Tensor, "volumes tokens"], Int[Tensor, "volumes"]]:
    """What stays of prompts up to their last visual token, which depends on nothing else.

    Returns:
        Each layer's memory; which of its tokens are real, for shorter volumes are padded on the
        left; and the place after each volume's last token.
    """
    ids = [torch.tensor(encode_prompt(tokenizer, v.grid_thw, markers=v.markers)) for v in visuals]
    upto = [prompt[: _num_before_question(qwen, prompt)] for prompt in ids]
    rows = _read_prompts(qwen, tokenizer, upto, visuals, positions)
    return rows.memories, rows.mask, rows.following


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
    return _Rows(memories_of(cache), mask, place.amax((0, 2)) + 1, hidden)


def _read_others(
    qwen: PreTrainedModel,
    prompts: Sequence[Int[Tensor, "_"]],
    contrast: Contrast,
    patients: Sequence[str | None],
) -> _Rows:
    """Each prompt's question once more, behind each of the other volumes: others × scans rows.

    Questions of one length at a time: padding would stand between a volume and its question, where
    a recurrent layer would read it.
    """
    others = contrast.others(patients)
    which = others.flatten()
    questions = [prompt[_num_before_question(qwen, prompt) :] for prompt in prompts] * len(others)
    lengths = torch.tensor([len(question) for question in questions])
    groups = [(lengths == length).nonzero()[:, 0] for length in sorted({*lengths.tolist()})]
    parts = [
        _read_on(qwen, contrast, which[rows], torch.stack([questions[row] for row in rows]))
        for rows in groups
    ]
    if len(parts) == 1:
        return parts[0]
    return reduce(_Rows.above, parts).take(torch.cat(groups).argsort())


def _read_on(
    qwen: PreTrainedModel,
    contrast: Contrast,
    which: Int[Tensor, "rows"],
    questions: Int[Tensor, "rows tokens"],
) -> _Rows:
    """A question each behind one of the contrast's volumes."""
    device = qwen.lm_head.weight.device
    which, questions = which.to(device), questions.to(device)
    cache = cache_of([memory.take(which) for memory in contrast.memories])
    mask = pad(contrast.mask[which], (0, questions.shape[1]), value=1)
    place = contrast.following[which, None] + torch.arange(questions.shape[1], device=device)
    hidden = _last(
        qwen,
        _text(qwen, questions),
        mask if not bool(mask.all()) else None,
        place[None].expand(3, -1, -1),
        cache,
    )
    return _Rows(memories_of(cache), mask, place[:, -1] + 1, hidden)


def _num_before_question(qwen: PreTrainedModel, prompt: Int[Tensor, "tokens"]) -> int:
    return int((prompt == qwen.config.video_token_id).nonzero()[-1]) + 1


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
