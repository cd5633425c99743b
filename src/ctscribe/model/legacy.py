"""Fields under which transformers 4.57, vLLM and SGLang look for what 5.x writes elsewhere."""

from pathlib import Path
from typing import Any

from ctscribe.files import read_json, write_json


def add_legacy_fields(folder: Path) -> None:
    """Rewrites a saved model's JSON files so that older releases read the same model.

    Without them 4.57 loses MRoPE, gives a tied output layer random weights, and refuses the
    tokenizer. What 5.x reads is left in place, or is read by it under its older name too.
    """
    config = read_json(folder / "config.json")
    text = config["text_config"]
    rope = text["rope_parameters"]
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    text["tie_word_embeddings"] = config["tie_word_embeddings"]
    write_json(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    write_json(path, _older_tokenizer(read_json(path)))


def _older_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    older = {key: value for key, value in config.items() if key not in _NEW}
    if older["tokenizer_class"] == "TokenizersBackend":
        older["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        older["additional_special_tokens"] = config["extra_special_tokens"]
    return older


_NEW = ("backend", "extra_special_tokens", "is_local", "local_files_only")
