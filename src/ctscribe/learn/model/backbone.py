"""`Backbone`: everything that differs between the families of vision-language models.

Each family is described in a file of its own by one `Backbone`; `families` finds it for a model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

MERGE = 2
"""A visual token merges 2 × 2 patches of 2 slices; the same in all families."""

Positions = Literal["index", "depth"]
"""Whether the depth of a slice pair is its number, or its position in mm."""


@runtime_checkable
class PlaceTokens(Protocol):
    """Gives the (time, row, column) position ids of the tokens of one prompt without padding."""

    def __call__(
        self,
        config: PreTrainedConfig,
        is_video: Bool[Tensor, "tokens"],
        grid_thw: Sequence[int],
        position_mm: Float[Tensor, "pairs"],
        mode: Positions,
    ) -> Int[Tensor, "3 tokens"]:
        """Raises ``E_POSITIONS`` for a prompt or positions that it cannot handle."""


@final
@dataclass(frozen=True)
class Backbone:
    """One family of models."""

    title: str
    """Its published name."""
    model_type: str
    """Its ``model_type`` in ``config.json``."""
    model: type[PreTrainedModel]
    """Its class, which has ``lm_head``, ``model.visual`` and ``model.language_model``."""
    rope: Mapping[str, Any]
    """Rotary embedding parameters of the language model that all sizes share."""
    tower: Mapping[str, Any]
    """Settings of the tower that all sizes share, besides patches and merging."""
    patch_px: int
    """Side of a patch in pixels; the sides of frames are multiples of `token_px`."""
    pixel_mean: tuple[float, float, float]
    """Of red, green and blue, from 0 to 1."""
    pixel_std: tuple[float, float, float]
    language_linears: str
    """Regular expression for the language model's linear layers that get adapters. A list of last
    name parts could also match layers of the tower."""
    tower_linears: str
    """The same for the tower's blocks."""
    markers: Callable[[Sequence[float], Positions], tuple[str, ...] | None]
    """(positions of slice pairs in mm, mode) → the text before each pair, in families where each
    pair has a vision block of its own; None where all pairs share one block."""
    place_tokens: PlaceTokens
    tower_features: Callable[[Any], Float[Tensor, "visual_tokens width"]]
    """Tower output → visual tokens; several levels stand side by side along ``width``."""
    mergers: Callable[[Any], list[nn.Module]]
    """Tower → its mergers (`MERGE` × `MERGE` patches → one token), one for each level."""
    further_inputs: Callable[[Bool[Tensor, "batch tokens"], list[Tensor]], dict[str, Any]]
    """(mask of visual tokens, levels behind the first, each [visual tokens, hidden]) → further
    arguments of the language model."""
    older_rope: Mapping[str, Any]
    """Entries of ``rope_scaling`` besides ``mrope_section``, for transformers before 5; later
    releases read them too."""
    processors: Mapping[str, str]
    """Class names of the library's ``processor``, ``image_processor`` and ``video_processor``."""

    @property
    def token_px(self) -> int:
        """Side of a visual token in pixels."""
        return self.patch_px * MERGE

    def build_config(
        self, language: Mapping[str, Any], tower: Mapping[str, Any], **token_ids: int
    ) -> PreTrainedConfig:
        """Configuration of a model of one size.

        ``language`` and ``tower`` hold what depends on the size; ``language`` also
        ``mrope_section`` and ``tie_word_embeddings``.
        """
        rest = dict(language)
        sections, tied = rest.pop("mrope_section"), rest.pop("tie_word_embeddings")
        rope = {"rope_type": "default", **self.rope, "mrope_section": sections}
        return self.model.config_class(
            text_config={**rest, "rms_norm_eps": 1e-6, "rope_parameters": rope},
            vision_config={
                **tower,
                **self.tower,
                "out_hidden_size": language["hidden_size"],
                "patch_size": self.patch_px,
                "temporal_patch_size": MERGE,
                "spatial_merge_size": MERGE,
            },
            tie_word_embeddings=tied,
            **token_ids,
        )


def override(mixin: type[nn.Module], module: nn.Module) -> None:
    """Overrides methods of a module of the library by those of ``mixin``, in place.

    The module's class becomes a subclass of its former class under the same name; weights and hooks
    stay.
    """
    kind = type(module)
    if not issubclass(kind, mixin):
        module.__class__ = type(kind.__name__, (mixin, kind), {})
