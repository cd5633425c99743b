"""What `export` writes, read by the installed releases of transformers and peft."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import open_run
from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.model.publish import publish
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.tower import patchify
from tests.learn.model.batches import make_batch, random_frames
from tests.refusals import refusal

Adapted = tuple[Qwen2_5_VLForConditionalGeneration, Path]
Logits = Callable[[Any], torch.Tensor]
FULL = Recipe.model_validate({"model": {"dtype": "float32"}})
LORA = Recipe.model_validate({"model": {"dtype": "float32", "tuning": "lora"}})


@pytest.fixture(scope="module")
def adapted(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Adapted:
    """A model with adapters that matter, and its saved best weights."""
    model = deepcopy(qwen)
    add_adapters(model, r=4, alpha=8)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    best = tmp_path_factory.mktemp("run") / "best"
    save_model(best, model, tokenizer)
    return model, best


@pytest.fixture(scope="module")
def logits(tokenizer: PreTrainedTokenizerBase) -> Logits:
    """Logits as anybody would ask for them, positions left to the library."""
    frames = random_frames(4, 112, 112)
    batch = make_batch(tokenizer, ["Findings: clear."], [frames])
    ids = batch["input_ids"]
    asked = {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "pixel_values_videos": patchify(frames, QWEN2_5_VL)[0],
        "video_grid_thw": batch["video_grid_thw"],
        "second_per_grid_ts": torch.tensor([1.0]),
        "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids("<|video_pad|>")).int() * 2,
    }
    return lambda model: model.eval()(**asked).logits.detach()


def test_merged_weights_give_the_logits_of_training(
    adapted: Adapted, tmp_path: Path, logits: Logits
) -> None:
    model, best = adapted
    merging = publish(best, tmp_path / "out", "merged", LORA)
    assert merging is not None
    assert merging.num_reports == 18
    assert merging.cross_entropy_after == pytest.approx(merging.cross_entropy_before, rel=1e-4)
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again), logits(model), atol=1e-3, rtol=1e-4)


def test_what_merging_costs_is_told(adapted: Adapted, tmp_path: Path) -> None:
    coarse = LORA.model_copy(update={"model": LORA.model.model_copy(update={"dtype": "bfloat16"})})
    merging = publish(adapted[1], tmp_path / "out", "merged", coarse)
    assert merging is not None
    before, after = merging.cross_entropy_before, merging.cross_entropy_after
    assert 0 < abs(after - before) < 0.1
    told = json.loads((tmp_path / "out" / "ctscribe.json").read_text())["merging"]
    assert told == asdict(merging)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
def test_adapters_give_them_on_the_weights_below(
    qwen: Qwen2_5_VLForConditionalGeneration, adapted: Adapted, tmp_path: Path, logits: Logits
) -> None:
    model, best = adapted
    publish(best, tmp_path / "out", "adapters", LORA, base="Qwen/Qwen2.5-VL-7B-Instruct")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "ctscribe.json",
    ]
    keys = load_file(tmp_path / "out" / "adapter_model.safetensors")
    layer = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    assert {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"} <= keys.keys()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert len(config["target_modules"]) == 7 * 3
    below = deepcopy(qwen)
    for name, weight in below.named_parameters():
        assert torch.equal(weight, qwen.get_parameter(name))
    again = PeftModel.from_pretrained(below, tmp_path / "out")
    assert not any("visual" in name for name, _ in again.named_parameters() if "lora" in name)
    torch.testing.assert_close(logits(again), logits(model), atol=1e-5, rtol=1e-5)


def test_the_folder_holds_what_engines_look_for_and_no_more(
    adapted: Adapted, tmp_path: Path
) -> None:
    _, best = adapted
    publish(best, tmp_path / "out", "merged", LORA)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "ctscribe.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
    ]
    keys = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {key.split(".")[0] for key in keys} == {"visual", "model"}
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert text["rope_scaling"] == {"type": "mrope", "mrope_section": [4, 6, 6]}
    assert text["rope_theta"] == 1e6
    assert text["tie_word_embeddings"] is True
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "<|video_pad|>" in written["additional_special_tokens"]
    about = json.loads((tmp_path / "out" / "ctscribe.json").read_text())
    assert about["positions"] == "index"
    assert about["question"].startswith("Write the findings")
    assert about["cue"] is None


def test_queries_that_only_tell_are_left_out_and_clients_learn_how_to_tell(
    adapted: Adapted, tmp_path: Path
) -> None:
    qwen, tokenizer = load_model(adapted[1])
    attach_finding_queries(qwen)
    save_model(tmp_path / "best", qwen, tokenizer)
    assert (tmp_path / "best" / "slice_attention.safetensors").exists()
    told = LORA.model_copy(update={"model": LORA.model.model_copy(update={"cues": True})})
    publish(tmp_path / "best", tmp_path / "out", "merged", told)
    assert not (tmp_path / "out" / "slice_attention.safetensors").exists()
    about = json.loads((tmp_path / "out" / "ctscribe.json").read_text())
    assert about["cue"] == " The image suggests: {findings}."


def test_the_settings_are_the_published_ones(
    shared_data: Path, adapted: Adapted, tmp_path: Path
) -> None:
    publish(adapted[1], tmp_path / "out", "merged", LORA)
    published = shared_data / "qwen2.5-vl-7b-instruct"
    for name in ("preprocessor_config.json",):
        ours, theirs = (json.loads((d / name).read_text()) for d in (tmp_path / "out", published))
        assert ours == theirs


def test_the_published_tokenizer_survives(
    shared_data: Path, qwen: Qwen2_5_VLForConditionalGeneration, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
    save_model(tmp_path / "best", qwen, tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path / "best")
    text = "<|im_start|>Findings: a 12 mm nodule.<|video_pad|><|im_end|>"
    assert again.encode(text) == tokenizer.encode(text)
    assert sorted(again.all_special_tokens) == sorted(tokenizer.all_special_tokens)
    written = json.loads((tmp_path / "best" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "Qwen2Tokenizer"


def test_frames_pass_the_processor_unscaled(adapted: Adapted, tmp_path: Path) -> None:
    publish(adapted[1], tmp_path / "out", "merged", LORA)
    processor = Qwen2VLImageProcessorPil.from_pretrained(tmp_path / "out")
    for height, width in ((56, 56), (112, 140), (504, 504)):
        frame = torch.zeros(height, width, 3, dtype=torch.uint8).numpy()
        grid = processor([frame], return_tensors="pt")["image_grid_thw"][0].tolist()
        assert grid == [1, height // 14, width // 14]


def test_the_written_number_type_is_the_recipes(adapted: Adapted, tmp_path: Path) -> None:
    publish(adapted[1], tmp_path / "out", "merged", Recipe())
    tensors = load_file(tmp_path / "out" / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_cannot_be_exported_is_one_sentence(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    adapted: Adapted,
    tmp_path: Path,
) -> None:
    save_model(tmp_path / "full", qwen, tokenizer)
    towered = LORA.model_copy(
        update={"model": LORA.model.model_copy(update={"freeze_merger": False})}
    )
    queried = LORA.model_copy(
        update={"model": LORA.model.model_copy(update={"slice_attention": True})}
    )
    for best, out, what, recipe, code in (
        (adapted[1], "e", "merged", queried, "E_EXPORT"),
        (tmp_path / "full", "a", "adapters", FULL, "E_EXPORT"),
        (adapted[1], "b", "adapters", towered, "E_EXPORT"),
        (tmp_path / "none", "c", "adapters", LORA, "E_WEIGHTS"),
        (tmp_path / "none", "d", "merged", LORA, "E_WEIGHTS"),
        (adapted[1], "full", "merged", LORA, "E_EXISTS"),
    ):
        with pytest.raises(CtscribeError) as caught:
            publish(best, tmp_path / out, what, recipe)  # type: ignore[arg-type]
        assert caught.value.code == code


def test_adapters_of_a_reinforced_run_need_the_weights_that_it_started_from(
    adapted: Adapted, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run", "reinforce", {})
    shutil.copytree(adapted[1], run / "best")
    with refusal("E_EXPORT", "weights that it started from"):
        publish(run / "best", tmp_path / "out", "adapters", LORA)
    publish(run / "best", tmp_path / "out", "adapters", LORA, base="started")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "started"
    publish(run / "best", tmp_path / "whole", "merged", LORA)
    trained = open_run(tmp_path / "trained", "train", {})
    shutil.copytree(adapted[1], trained / "best")
    publish(trained / "best", tmp_path / "plain", "adapters", LORA)
