"""Plain attention: what the language model itself looks at while it writes a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.evidence.leave_out import Shown
from ctscribe.evidence.sentences import ReadReport
from ctscribe.model.qwen import embed
from ctscribe.model.slice_attention import gate


@torch.inference_mode()
def plain_attention(
    qwen: Qwen2_5_VLForConditionalGeneration, report: ReadReport, shown: Shown
) -> Float[Tensor, "sentences pairs"]:
    """Attention that a sentence's tokens pay to each slice pair when they are predicted.

    Mean over layers, heads and tokens, as attention maps are usually read; rows do not sum to 1,
    since text is looked at too. All attention matrices are held at once, so it is for models and
    sequences of moderate size.

    Args:
        qwen: The model.
        report: Its sentences.
        shown: The same report behind its volume.
    """
    grid = torch.tensor([shown.grid_thw])
    tokens = gate(qwen, shown.visual_tokens, grid).visual_tokens
    with _plain_kernels(qwen):
        attentions = qwen.model.language_model(
            inputs_embeds=embed(qwen, shown.input_ids[None], tokens),
            attention_mask=None,
            position_ids=shown.places,
            use_cache=False,
            output_attentions=True,
        ).attentions
    mean = torch.stack([layer[0].float().mean(0) for layer in attentions]).mean(0).cpu()
    is_video = (shown.input_ids == qwen.config.video_token_id).cpu()
    predicting = mean[shown.answer_start - 1 : -2][:, is_video]
    by_pair = predicting.reshape(len(predicting), shown.num_pairs, -1).sum(2)
    members = report.tokens.float()
    return members @ by_pair / members.sum(1, keepdim=True).clamp(min=1)


@contextmanager
def _plain_kernels(qwen: Qwen2_5_VLForConditionalGeneration) -> Iterator[None]:
    """Fused kernels do not tell their attention."""
    config = qwen.model.language_model.config
    usual = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = usual
