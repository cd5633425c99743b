"""The known families of models, and the family of a given model."""

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel

from ctscribe.base.files import read_json
from ctscribe.learn.model.backbone import Backbone, Positions
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.qwen3_5 import QWEN3_5
from ctscribe.learn.model.qwen3_vl import QWEN3_VL
from ctscribe.learn.pairs.dataset import Visual

BACKBONES = {family.model_type: family for family in (QWEN2_5_VL, QWEN3_VL, QWEN3_5)}
"""By ``model_type``."""
*_earlier, _last = (family.title for family in BACKBONES.values())
TITLES = f"{', '.join(_earlier)} or {_last}"


def backbone_of(model: PreTrainedModel | PreTrainedConfig) -> Backbone:
    """The family of a model or configuration that `checkpoint.load_model` accepts."""
    config = model if isinstance(model, PreTrainedConfig) else model.config
    return BACKBONES[config.model_type]


def backbone_in(folder: Path) -> Backbone:
    """The family of a checkpoint, from its ``config.json`` alone."""
    return BACKBONES[str(read_json(folder / "config.json")["model_type"])]


def feature_width(model: PreTrainedModel) -> int:
    """Width of a visual token: the output width of the tower's mergers, summed over levels."""
    tower = model.model.visual
    return len(backbone_of(model).mergers(tower)) * int(tower.config.out_hidden_size)


def with_markers(backbone: Backbone, visual: Visual, positions: Positions) -> Visual:
    """Adds the texts that a family's prompt has before each slice pair, if it has any."""
    return replace(visual, markers=backbone.markers(visual.position_mm, positions))
