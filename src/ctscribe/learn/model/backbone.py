"""What a family of vision-language models must answer so that the rest can work with it.

Each family answers in a file of its own, as one `Backbone`; `families` finds it for a model. What
ends a report is not asked: the chat template of a tokenizer says it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

MERGE = 2
"""Patches along each side of a visual token, and slices in it: the same in all families."""

Positions = Literal["index", "depth"]
"""Whether slice pairs are counted, or stand where they lie in the body."""


@runtime_checkable
class PlaceTokens(Protocol):
    """Time, row and column index of every token of one prompt, padding left out."""

    def __call__(
        self,
        config: PreTrainedConfig,
        is_video: Bool[Tensor, "tokens"],
        grid_thw: Sequence[int],
        position_mm: Float[Tensor, "pairs"],
        mode: Positions,
    ) -> Int[Tensor, "3 tokens"]:
        """Refuses with ``E_POSITIONS`` what it cannot place."""


@final
@dataclass(frozen=True)
class Backbone:
    """One family's answers."""

    title: str
    """As its authors write it."""
    model_type: str
    """What ``config.json`` calls it."""
    model: type[PreTrainedModel]
    """The class with ``lm_head`` beside ``model.visual`` and ``model.language_model``."""
    rope: Mapping[str, Any]
    """Rotary embedding of the language model, as all sizes have it."""
    tower: Mapping[str, Any]
    """Of the tower's configuration, what all sizes have beside patches and merging."""
    patch_px: int
    """Side of a patch; frames have sides that are multiples of `token_px`."""
    pixel_mean: tuple[float, float, float]
    """Of red, green and blue between 0 and 1."""
    pixel_std: tuple[float, float, float]
    language_linears: str
    """Pattern of the names of the language model's linear layers that adapters sit on; a plain list
    of last names could also hit the tower."""
    tower_linears: str
    """The same of the tower's blocks."""
    markers: Callable[[Sequence[float], Positions], tuple[str, ...] | None]
    """From positions of slice pairs in mm: the text before each pair, which then stands in a vision
    block of its own; None where all pairs stand in one."""
    place_tokens: PlaceTokens
    tower_features: Callable[[Any], Float[Tensor, "visual_tokens width"]]
    """What the language model reads of the tower's output, levels side by side."""
    mergers: Callable[[Any], list[nn.Module]]
    """Of a tower, in the order of the levels: what makes one token of `MERGE` × `MERGE` patches."""
    further_inputs: Callable[[Bool[Tensor, "batch tokens"], list[Tensor]], dict[str, Any]]
    """What the language model is given beside embeddings: where visual tokens stand, and the levels
    behind the first, each [visual tokens, hidden]."""
    older_rope: Mapping[str, Any]
    """What stands beside ``mrope_section`` in a configuration's ``rope_scaling``, which releases
    before 5 read and later ones believe too."""
    processors: Mapping[str, str]
    """Names of the library's ``processor``, ``image_processor`` and ``video_processor``."""

    @property
    def token_px(self) -> int:
        """Side of what a visual token shows."""
        return self.patch_px * MERGE

    def build_config(
        self, language: Mapping[str, Any], tower: Mapping[str, Any], **token_ids: int
    ) -> PreTrainedConfig:
        """A configuration of random weights, with what all sizes of the family share filled in.

        ``language`` also has ``mrope_section`` and ``tie_word_embeddings``.
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


def put_in_front(mixin: type[nn.Module], module: nn.Module) -> None:
    """Lets a module of the library answer with the methods of ``mixin`` first, in place.

    It stays an instance of its class, and keeps its class's name, weights and hooks.
    """
    kind = type(module)
    if not issubclass(kind, mixin):
        module.__class__ = type(kind.__name__, (mixin, kind), {})
