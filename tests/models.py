"""The smallest Qwen2.5-VL with its tokenizer, run folders of it, and a classifier of reports."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    RobertaConfig,
    RobertaModel,
)

from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import open_run
from ctscribe.learn.model.backbone import Backbone
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.qwen3_5 import QWEN3_5
from ctscribe.learn.model.qwen3_vl import QWEN3_VL
from ctscribe.text.prompt import QUESTION, SYSTEM
from ctscribe.write.calibration import Calibration

REPORTS = (
    *("Findings: The lungs are clear. No pleural effusion.", "Impression: Normal chest."),
    *("Findings: There is a 12 mm nodule in the right upper lobe.", "Impression: Lung nodule."),
    "Findings: The trachea is open. A nodule of 6 mm is seen.",
)
WORDS = (
    *("no", "nodule", "effusion", "is", "seen", "in", "the", "lung", "heart"),
    *("normal", "with", "and", "large", "small"),
)


def tiny_tokenizer(texts: Iterable[str] = REPORTS) -> PreTrainedTokenizerBase:
    """At most 400 tokens, learned from the prompt and these texts."""
    return train_tokenizer(["system", "user", "assistant", SYSTEM, QUESTION, *texts] * 3, 400)


def tiny_model(
    tokenizer: PreTrainedTokenizerBase, *, decided: bool = False, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """The preset `tiny` with random weights.

    Args:
        tokenizer: Its own.
        decided: Larger weights, so that answers are far from uniform and differences show.
        seed: Of the weights, and of what is drawn next.
    """
    torch.manual_seed(seed)
    config = build_config("tiny", tokenizer)
    if decided:
        config.text_config.initializer_range = 0.2
        config.vision_config.initializer_range = 0.2
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def tiny_of(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> PreTrainedModel:
    """A few layers of a family's real class; no bias is 0 and no norm's scale 1.

    Recurrent layers remember their first token to the last.
    """
    torch.manual_seed(seed)
    if backbone is QWEN2_5_VL:
        config = build_config("tiny", tokenizer)
    else:
        config = _tiny_qwen3(backbone, tokenizer)
    model = backbone.model(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn_like(weight))
            if name.endswith("A_log"):
                weight.sub_(4)
    return model


_OWN: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    QWEN3_VL.model_type: ({"mrope_section": [6, 5, 5]}, {"deepstack_visual_indexes": [0, 2]}),
    QWEN3_5.model_type: (
        {
            "mrope_section": [2, 1, 1],  # a quarter of the head is turned
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 12,
        },
        {},
    ),
}
"""Dimensions of language model and tower that one family alone has."""


def _tiny_qwen3(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    language, tower = _OWN[backbone.model_type]
    return backbone.build_config(
        {
            **language,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,  # not hidden_size over heads, as in Qwen3-VL-4B
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        {
            **tower,
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "num_position_embeddings": 36,
            "initializer_range": 0.2,
        },
        **{
            f"{name}_token_id": int(tokenizer.convert_tokens_to_ids(f"<|{token}|>"))
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )


def write_run(
    folder: Path,
    recipe: Recipe,
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
) -> Path:
    """A folder as training leaves it, with the model as the best one."""
    open_run(folder, "train", {"recipe": recipe.model_dump(mode="json")})
    save_model(folder / "best", qwen, tokenizer)
    return folder


def plain_calibration(weights_sha256: str) -> Calibration:
    """Of these weights; takes the queries at their word and a sentence for its least sure one."""
    return Calibration(
        weights_sha256=weights_sha256,
        finding_slope=1,
        finding_offsets=(0,) * 18,
        sentence_slopes=(0, 1),
        sentence_offset=0,
        threshold=0.5,
        cue_threshold=0.5,
    )


def save_classifier(folder: Path) -> Path:
    """A tiny random RoBERTa with a head of 18 findings."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate((*specials, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=514,
        pad_token_id=1,
        initializer_range=1.0,
    )
    model = RobertaModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head = {"classifier.weight": torch.randn(18, 16), "classifier.bias": torch.randn(18)}
    save_file(head, folder / "head.safetensors")
    return folder
