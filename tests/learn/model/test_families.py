"""What holds for every family of models alike."""

import re
from pathlib import Path

import ctscribe
from ctscribe.learn.model.families import BACKBONES

SRC = Path(ctscribe.__file__).parent


def test_no_other_file_names_a_familys_classes() -> None:
    """Qwen2_5_VLConfig, Qwen2VLVideoProcessor, Qwen3VLModel, Qwen3_5ForCausalLM and their like."""
    named = re.compile(r"Qwen\d\w*?(VL|For|Config|Model)")
    own = {f"{name}.py" for name in BACKBONES}
    found = {path.name for path in SRC.rglob("*.py") if named.search(path.read_text())}
    assert found == own
