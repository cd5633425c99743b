"""A first layer that sees texture from the first step, for a tower trained from nothing."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.model.qwen import patchify

_RIDGE = 0.1


@torch.no_grad()
def whiten_patches(
    qwen: Qwen2_5_VLForConditionalGeneration,
    frames: Sequence[UInt8[Tensor, "_ _ _ 3"]],
) -> None:
    """Sets the patch embedding to the patches' principal components, each scaled to unit variance.

    Nearly all variance of CT patches is their mean brightness; random filters pass little else,
    and the norm behind them keeps only the direction of what they pass. After whitening (with a
    ridge, so that noise is not blown up) borders and texture count as much as brightness. The
    components are turned by a random rotation, since single ones mean nothing to the layers above.

    Args:
        qwen: Its patch embedding is replaced; torch's generator turns it.
        frames: Examples; some dozens of volumes suffice.
    """
    weight = qwen.model.visual.patch_embed.proj.weight
    width = len(weight)
    patches = torch.cat([patchify(volume)[0] for volume in frames])
    centred = patches - patches.mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances[-width:], axes[:, -width:]
    ridge = _RIDGE * centred.square().mean()
    rotation = torch.linalg.qr(torch.randn(width, width)).Q
    whitening = rotation @ (axes / (variances.clamp(min=0) + ridge).sqrt()).T
    weight.copy_(whitening.reshape(weight.shape))
