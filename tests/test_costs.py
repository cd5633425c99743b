"""Computed costs against small models of the real class, whose parts torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

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
from ctscribe.learn.model.presets import build_config
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.segments import narrow
from ctscribe.learn.model.tower import encode_frames, speed_up_tower
from ctscribe.learn.pairs.collate import Batch, collate_samples
from ctscribe.learn.pairs.dataset import Sample as Read
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.learn.train.scorer import choose_trainable
from ctscribe.text.prompt import encode_example

RANK, PAIRS, ROWS = 8, 4, 16
MILLIMETRES = (0.0, -30.0, -60.0, -90.0)


@pytest.fixture(scope="module")
def small(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLForConditionalGeneration:
    """The 3B's proportions at a sixteenth of its width, with adapters."""
    config = build_config("qwen2.5-vl-3b", tokenizer)
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads = 256, 1376, 2
    text.num_key_value_heads, text.num_hidden_layers = 1, 4
    text.layer_types = ["full_attention"] * 4
    tower.depth, tower.fullatt_block_indexes, tower.out_hidden_size = 4, [1], 256
    tower.hidden_size, tower.intermediate_size, tower.num_heads = 160, 428, 2
    torch.manual_seed(0)
    qwen = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    speed_up_tower(qwen)
    narrow(qwen)
    choose_trainable(qwen, ModelConfig(preset="qwen2.5-vl-3b", tuning="lora", lora_r=RANK))
    return qwen


@pytest.fixture(scope="module")
def batch(tokenizer: PreTrainedTokenizerBase) -> tuple[Batch, Sample]:
    grid = (PAIRS, 2 * ROWS, 2 * ROWS)
    ids, labels = encode_example(tokenizer, "There is a nodule in the lung. " * 12, grid)
    answers = sum(label != -100 for label in labels)
    tokens = torch.randn(PAIRS * ROWS**2, 256).bfloat16()
    shown = Visual(grid, MILLIMETRES, None, tokens)
    sample = Sample(PAIRS, ROWS, ROWS, len(ids) - len(tokens) - answers, answers)
    read = Read("train_1_a_1", torch.tensor(ids), torch.tensor(labels), shown)
    return collate_samples([read], pad_id=0), sample


def test_operations_of_a_pair_and_of_its_parts(
    small: Qwen2_5_VLForConditionalGeneration, batch: tuple[Batch, Sample]
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


def test_operations_of_the_tower(small: Qwen2_5_VLForConditionalGeneration) -> None:
    side = ROWS * 28
    frames = torch.randint(0, 256, (2 * PAIRS, side, side, 3)).to(torch.uint8)
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with torch.inference_mode(), counter:
        encode_frames(small, [frames])
    computed = tower_flops(small.config, Sample(PAIRS, ROWS, ROWS, 0, 0))
    assert computed == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_weights(small: Qwen2_5_VLForConditionalGeneration) -> None:
    learning = sum(each.numel() for each in small.parameters() if each.requires_grad)
    assert adapter_weights(small.config, RANK) == learning
    below = sum(each.numel() for each in small.parameters()) - learning
    assert weights(small.config) == pytest.approx(below, rel=0.01)


@pytest.mark.parametrize(
    ("preset", "billions"), [("qwen2.5-vl-3b", 3.755), ("qwen2.5-vl-7b", 8.292)]
)
def test_weights_of_the_published_sizes(preset: str, billions: float) -> None:
    assert weights(published_config(preset)) / 1e9 == pytest.approx(billions, rel=1e-3)


def test_what_is_kept_for_the_backward_pass(
    small: Qwen2_5_VLForConditionalGeneration, batch: tuple[Batch, Sample]
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
    # the last layer works at the answer alone
    whole_layers = 3 / 4 * kept_bytes(small.config, RANK) * sample.tokens
    assert whole_layers == pytest.approx(found, rel=0.1)


def test_the_page_on_real_size_holds_what_is_computed() -> None:
    text = page_text("real_size", told(RESULTS / "real_size.json"))
    assert text == (PAGES / "real_size.md").read_text(encoding="utf-8")
