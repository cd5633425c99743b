"""Features of another encoder made into visual tokens: its identity, and the projector that learns.

A 3D encoder that saw many scans gives a volume one row of numbers per cell of a grid. The model
reads them in the place of what its own tower would see, through two layers that are trained with
it. The tower stays in the checkpoint and is not run.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, sha256_of_json
from ctscribe.learn.model.families import feature_width

PROJECTOR_FILE, ENCODER_FILE = "encoder_projector.safetensors", "encoder.json"
"""Beside the weights of a run that reads another encoder's features: its `EncoderProjector`, and
whose features these are. The second also lies beside the stored features."""


@final
@dataclass(frozen=True)
class Encoder:
    """Whose features they are; two with one name are told apart by the rest."""

    name: str
    width: int
    """Numbers per cell of its grid."""
    weights_sha256: str | None = None
    """Of the file that was given as its weights; None where none was."""

    @property
    def hash(self) -> str:
        """Names the folder of its features."""
        return sha256_of_json(asdict(self))[:16]

    def __str__(self) -> str:
        weights = self.weights_sha256[:12] if self.weights_sha256 else "not given"
        return f"{self.name} ({self.width} numbers per cell, weights {weights})"


@final
class EncoderProjector(nn.Module):
    """Norm, linear, GELU, linear: a cell's features → a visual token.

    Of families that read several levels of their tower, the levels behind the first start at 0.
    """

    def __init__(self, encoder: Encoder, hidden_size: int, out_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.width)
        self.inner = nn.Linear(encoder.width, hidden_size)
        self.outer = nn.Linear(hidden_size, out_width)
        with torch.no_grad():
            self.outer.weight[hidden_size:] = 0
            self.outer.bias[hidden_size:] = 0

    def forward(self, features: Float[Tensor, "cells width"]) -> Float[Tensor, "cells out"]:
        """In the number type of its weights, as autocast has it."""
        inner = self.inner(self.norm(features.to(self.norm.weight)))
        projected: Tensor = self.outer(nn.functional.gelu(inner))
        return projected


def read_encoder(path: Path) -> Encoder:
    """Whose features a folder, or a run's projector, holds.

    Raises:
        CtscribeError: ``E_ENCODER`` where that is not said.
    """
    try:
        return TypeAdapter(Encoder).validate_python(read_json(path))
    except ValidationError as error:
        raise CtscribeError(
            "E_ENCODER", f"{path} must name an encoder, but was changed since it was written"
        ) from error


def attach_projector(qwen: PreTrainedModel, encoder: Encoder) -> EncoderProjector:
    """Lets a model read another encoder's features, in place; it stays its own class.

    The projector's weights are drawn by torch's generator.
    """
    hidden_size = int(qwen.config.text_config.hidden_size)
    projector = EncoderProjector(encoder, hidden_size, feature_width(qwen))
    qwen.encoder_projector = projector.to(qwen.lm_head.weight.device)
    return projector


def projector_of(qwen: PreTrainedModel) -> EncoderProjector | None:
    """The projector of a model that reads another encoder's features."""
    return getattr(qwen, "encoder_projector", None)
