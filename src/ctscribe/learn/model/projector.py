"""Another vision encoder in the tower's place: its identity, and the trainable projector.

A pretrained 3D encoder gives a volume one feature vector per cell of a grid. A projector of two
layers, trained with the model, turns each into a visual token. The model's own tower stays in the
checkpoint but is not run.
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
"""Files beside the weights of such a run: the tensors of its `EncoderProjector`, and the `Encoder`.
The second also lies beside the stored features."""


@final
@dataclass(frozen=True)
class Encoder:
    """The identity of an encoder; encoders of one name can differ in the other fields."""

    name: str
    width: int
    """Length of a feature vector."""
    weights_sha256: str | None = None
    """Hash of its weights file; None where no file was given."""

    @property
    def hash(self) -> str:
        """Name of the folder of its features."""
        return sha256_of_json(asdict(self))[:16]

    def __str__(self) -> str:
        weights = self.weights_sha256[:12] if self.weights_sha256 else "not given"
        return f"{self.name} ({self.width} numbers per cell, weights {weights})"


@final
class EncoderProjector(nn.Module):
    """LayerNorm, linear, GELU, linear: a cell's features → a visual token.

    For families with several tower levels, the outputs for the levels behind the first start as 0.
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
        """Casts the features to the dtype of its weights first."""
        inner = self.inner(self.norm(features.to(self.norm.weight)))
        projected: Tensor = self.outer(nn.functional.gelu(inner))
        return projected


def read_encoder(path: Path) -> Encoder:
    """Reads the `ENCODER_FILE` of a folder of features, or of a run.

    Raises:
        CtscribeError: ``E_ENCODER`` where its content is not an `Encoder`.
    """
    try:
        return TypeAdapter(Encoder).validate_python(read_json(path))
    except ValidationError as error:
        raise CtscribeError(
            "E_ENCODER", f"{path} must name an encoder, but was changed since it was written"
        ) from error


def attach_projector(qwen: PreTrainedModel, encoder: Encoder) -> EncoderProjector:
    """Adds an untrained projector for an encoder to a model, in place; the model keeps its class.

    Its weights are drawn with torch's global generator.
    """
    hidden_size = int(qwen.config.text_config.hidden_size)
    projector = EncoderProjector(encoder, hidden_size, feature_width(qwen))
    qwen.encoder_projector = projector.to(qwen.lm_head.weight.device)
    return projector


def projector_of(qwen: PreTrainedModel) -> EncoderProjector | None:
    """A model's projector; None where the model uses its own tower."""
    return getattr(qwen, "encoder_projector", None)
