"""The page of what makes the writer say what it sees."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import Study

ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "cues": ("pairs.strategy=origin", "objective.beta=0", "model.cues=true"),
    "heter": ("pairs.strategy=heter",),
    "gauss": ("pairs.strategy=gauss",),
}


def page(study: Study) -> Mapping[str, Any]:
    return {}
