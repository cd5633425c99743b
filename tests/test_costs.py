"""Computed costs against small models of the real class, whose parts torch counts."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.bench_train import UNCOUNTED
from benchmarks.costs import (
    Sample,
    adapter_weights,
    kept_bytes,
    language_flops,
    pair_flops,
    published_config,
    tower_flops,
    weights,
)
from benchmarks.harness import PAGES, RESULTS, page_text
from benchmarks.page_real_size import told
from ctscribe.base.recipe import ModelConfig
from ctscribe.learn.model.families import backbone_of, with_markers
from ctscribe.learn.model.packing import trim_last_layer
from ctscribe.learn.model.presets import PRESETS, build_config
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.tower import encode_frames, speed_up_tower
from ctscribe.learn.pairs.collate import Batch, collate_samples
from ctscribe.learn.pairs.dataset import Sample as Read
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.learn.train.scorer import choose_trainable, enable_checkpointing
from ctscribe.text.prompt import encode_example

RANK, PAIRS, ROWS = 8, 4, 16
MILLIMETRES = (0.0, -30.0, -60.0, -90.0)


SMALL: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "qwen2.5-vl-3b": (
        {"intermediate_size": 1376, "num_attention_heads": 2, "num_key_value_heads": 1},
        {"intermediate_size": 428, "hidden_size": 160, "fullatt_block_indexes": [1]},
    ),
    "qwen3-vl-4b": (
        {"intermediate_size": 973, "num_attention_heads": 3, "num_key_value_heads": 1},
        {"intermediate_size": 512, "hidden_size": 128, "deepstack_visual_indexes": [0, 1]},
    ),
    "qwen3.5-4b": (
        {
            "intermediate_size": 922,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        {"intermediate_size": 512, "hidden_size": 128},
    ),
}
"""A preset's proportions at about a tenth of its width."""


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """With adapters."""
    preset = PRESETS[request.param]
    language, tower = SMALL[request.param]
    layers = {"hidden_size": 256, "num_hidden_layers": 4}
    shrunk = replace(
        preset,
        language={**preset.language, **layers, **language},
        tower={**preset.tower, "depth": 4, "num_heads": 2, **tower},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, request.param, shrunk)
        config = build_config(request.param, tokenizer)
    torch.manual_seed(0)
    qwen = preset.backbone.model(config).to(torch.bfloat16)
    speed_up_tower(qwen)
    trim_last_layer(qwen)
    choose_trainable(qwen, ModelConfig(preset=request.param, tuning="lora", lora_r=RANK))
    return qwen


@pytest.fixture(scope="module")
def batch(small: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[Batch, Sample]:
    grid = (PAIRS, 2 * ROWS, 2 * ROWS)
    levels = len(backbone_of(small).mergers(small.model.visual))
    tokens = torch.randn(PAIRS * ROWS**2, 256 * levels).bfloat16()
    shown = with_markers(backbone_of(small), Visual(grid, MILLIMETRES, None, tokens), "index")
    answer = "There is a nodule in the lung. " * 12
    ids, labels = encode_example(tokenizer, answer, grid, markers=shown.markers)
    answers = sum(label != -100 for label in labels)
    sample = Sample(PAIRS, ROWS, ROWS, len(ids) - len(tokens) - answers, answers)
    read = Read("train_1_a_1", torch.tensor(ids), torch.tensor(labels), shown)
    return collate_samples([read], pad_id=0), sample


def test_operations_of_a_pair_and_of_its_parts(
    small: PreTrainedModel, batch: tuple[Batch, Sample]
) -> None:
    asked, sample = batch
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with counter:
        loss = answer_losses(small, asked, "index").values.mean()
    forward = counter.get_total_flops()
    with counter:
        loss.backward()  # type: ignore[no-untyped-call]
    backward = counter.get_total_flops()
    assert language_flops(small.config, sample, RANK) == pytest.approx(forward, rel=0.03)
    both = 2 * (forward + backward)
    assert pair_flops(small.config, sample, RANK) == pytest.approx(both, rel=0.06)
    skipped = 2 * forward + backward
    assert pair_flops(small.config, sample, RANK, skipped=True) == pytest.approx(skipped, rel=0.06)


def test_layers_that_are_computed_again_are_counted_twice(
    small: PreTrainedModel, batch: tuple[Batch, Sample]
) -> None:
    asked, sample = batch
    qwen = deepcopy(small)
    enable_checkpointing(qwen, "layers")
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with counter:
        answer_losses(qwen, asked, "index").values.mean().backward()  # type: ignore[no-untyped-call]
    computed = pair_flops(small.config, sample, RANK, again=True)
    assert computed == pytest.approx(2 * counter.get_total_flops(), rel=0.06)
    assert computed > 1.2 * pair_flops(small.config, sample, RANK)


def test_operations_of_the_tower(small: PreTrainedModel) -> None:
    side = ROWS * backbone_of(small).token_px
    frames = torch.randint(0, 256, (2 * PAIRS, side, side, 3)).to(torch.uint8)
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with torch.inference_mode(), counter:
        encode_frames(small, [frames])
    computed = tower_flops(small.config, Sample(PAIRS, ROWS, ROWS, 0, 0))
    assert computed == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_weights(small: PreTrainedModel) -> None:
    learning = sum(each.numel() for each in small.parameters() if each.requires_grad)
    assert adapter_weights(small.config, RANK) == learning
    below = sum(each.numel() for each in small.parameters()) - learning
    assert weights(small.config) == pytest.approx(below, rel=0.01)


@pytest.mark.parametrize(
    ("preset", "billions"),
    [
        ("qwen2.5-vl-3b", 3.755),
        ("qwen2.5-vl-7b", 8.292),
        ("qwen3-vl-4b", 4.438),
        ("qwen3.5-4b", 4.539),
    ],
)
def test_weights_of_the_published_sizes(preset: str, billions: float) -> None:
    assert weights(published_config(preset)) / 1e9 == pytest.approx(billions, rel=1e-3)


def test_what_is_kept_for_the_backward_pass(
    small: PreTrainedModel, batch: tuple[Batch, Sample]
) -> None:
    asked, sample = batch
    held = {each.untyped_storage().data_ptr() for each in small.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in held:
            kept[place] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        answer_losses(small, asked, "index")
    found = sum(each.untyped_storage().nbytes() for each in kept.values())
    whole = deepcopy(small.config)  # the last layer works at the answer alone
    whole.text_config.num_hidden_layers -= 1
    if kinds := getattr(whole.text_config, "layer_types", None):
        whole.text_config.layer_types = kinds[:-1]
    assert kept_bytes(whole, RANK) * sample.tokens == pytest.approx(found, rel=0.1)


def test_the_page_on_real_size_holds_what_is_computed() -> None:
    text = page_text("real_size", told(RESULTS / "real_size"))
    assert text == (PAGES / "real_size.md").read_text(encoding="utf-8")
