"""How probable a report is when some slice pairs are taken away: exact, over stored features.

Slice pairs never meet in the tower, so taking one away is taking its tokens out of the sequence;
all else, positions included, stays where it was. The language model is run anew for each set of
pairs kept, several sets at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.model.qwen import encode_frames, positions_for
from ctscribe.model.slice_attention import gate
from ctscribe.pairs.dataset import Visual
from ctscribe.reports.prompt import encode_example

SETS_PER_CALL = 16

Kept = frozenset[int]
"""Slice pairs that stay, counted in frame order."""


@final
@dataclass(frozen=True)
class Shown:
    """One report with one volume, ready to be asked about."""

    input_ids: Int[Tensor, "tokens"]
    answer_start: int
    """Index of the answer's first token."""
    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    grid_thw: tuple[int, int, int]
    places: Int[Tensor, "3 1 tokens"]
    """Of all tokens, with all slice pairs there."""

    @property
    def num_pairs(self) -> int:
        """Slice pairs of the volume."""
        return self.grid_thw[0]


def show(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    answer: str,
    visual: Visual,
    positions: Literal["index", "depth"],
) -> Shown:
    """Puts a report behind a volume.

    Args:
        qwen: The model.
        tokenizer: Its tokenizer.
        answer: As `reports.sections.join_report` writes it.
        visual: Frames or stored features.
        positions: Mode of `model.positions.position_ids`.

    Raises:
        CtscribeError: ``E_REPORT`` when the report is empty.
    """
    device = qwen.lm_head.weight.device
    ids, labels = encode_example(tokenizer, answer, visual.grid_thw)
    tokens = visual.visual_tokens
    if visual.frames is not None:
        with torch.inference_mode():
            tokens = encode_frames(qwen, [visual.frames])
    assert tokens is not None  # a visual input is one of the two
    input_ids = torch.tensor(ids, device=device)
    places = positions_for(
        qwen,
        input_ids[None],
        torch.ones_like(input_ids)[None],
        torch.tensor([visual.grid_thw]),
        torch.tensor([visual.position_mm], device=device),
        positions,
    )
    start = next(i for i, label in enumerate(labels) if label != -100)
    return Shown(input_ids, start, tokens.to(device), visual.grid_thw, places)


@torch.inference_mode()
def log_probs(
    qwen: Qwen2_5_VLForConditionalGeneration, shown: Shown, kept: Sequence[Kept]
) -> Float[Tensor, "sets answer_tokens"]:
    """Log-probability of every token of the answer, its end included, for each set of pairs kept.

    Args:
        qwen: The model.
        shown: From `show`.
        kept: Sets of slice pairs; the order does not matter.
    """
    answer = shown.input_ids[shown.answer_start :]
    result = torch.empty(len(kept), len(answer))
    sizes = {len(each) for each in kept}
    for size in sizes:
        same = [i for i, each in enumerate(kept) if len(each) == size]
        for start in range(0, len(same), SETS_PER_CALL):
            rows = same[start : start + SETS_PER_CALL]
            result[rows] = _log_probs(qwen, shown, [kept[i] for i in rows], answer)
    return result


def _log_probs(
    qwen: Qwen2_5_VLForConditionalGeneration,
    shown: Shown,
    kept: Sequence[Kept],
    answer: Int[Tensor, "answer_tokens"],
) -> Float[Tensor, "sets answer_tokens"]:
    """For sets of one size, whose sequences are therefore of one length."""
    text = qwen.get_input_embeddings()(shown.input_ids)
    is_video = shown.input_ids == qwen.config.video_token_id
    pair = torch.full_like(shown.input_ids, -1)
    pairs, rows, columns = shown.grid_thw
    counted = torch.arange(pairs, device=pair.device)
    pair[is_video] = counted.repeat_interleave(rows * columns // 4)
    embeds, places = [], []
    for each in kept:
        stays = ~is_video | torch.isin(pair, torch.tensor(sorted(each), device=pair.device))
        tokens = shown.visual_tokens[stays[is_video]]
        if each:
            grid = torch.tensor([[len(each), rows, columns]])
            tokens = gate(qwen, tokens, grid).visual_tokens
        embeds.append(text.masked_scatter((stays & is_video)[:, None], tokens.to(text))[stays])
        places.append(shown.places[:, :, stays])
    hidden = qwen.model.language_model(
        inputs_embeds=torch.stack(embeds),
        attention_mask=None,
        position_ids=torch.cat(places, dim=1),
        use_cache=False,
    ).last_hidden_state[:, -len(answer) - 1 : -1]
    nats = [cross_entropy(qwen.lm_head(row).float(), answer, reduction="none") for row in hidden]
    return -torch.stack(nats).cpu()
