"""Every knob, declared once: type, default, unit and range stand with the field.

A recipe is a YAML file with these keys; the command line changes single knobs with
``--set section.key=value``. Only the stages' entry functions read this module.
"""

from ctscribe.config.data import (
    PairsConfig,
    PhantomConfig,
    SlicesConfig,
    VolumeConfig,
)
from ctscribe.config.learning import (
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
    WarmUpConfig,
)
from ctscribe.config.measuring import (
    EvaluateConfig,
    ExperimentConfig,
    GenerateConfig,
)
from ctscribe.config.recipe import Recipe, read_recipe

__all__ = [
    "EvaluateConfig",
    "ExperimentConfig",
    "GenerateConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PairsConfig",
    "PhantomConfig",
    "Recipe",
    "SlicesConfig",
    "TrainConfig",
    "VolumeConfig",
    "WarmUpConfig",
    "read_recipe",
]
