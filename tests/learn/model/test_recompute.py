"""What is computed again gives the same gradients, and is not kept meanwhile."""

from copy import deepcopy
from typing import Any, Literal

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.train.scorer import recompute
from tests.learn.model.batches import make_batch, random_frames


def step(
    qwen: Qwen2_5_VLForConditionalGeneration,
    batch: dict[str, Any],
    what: Literal["none", "layers", "cheap"],
) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients, and the operations of the products that made them."""
    model = deepcopy(qwen).train()
    if what != "none":
        recompute(model, what)
    with FlopCounterMode(display=False) as counter:
        answer_losses(model, batch, "depth").values.sum().backward()  # type: ignore[arg-type,no-untyped-call]
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return gradients, counter.get_total_flops()


@pytest.mark.parametrize("what", ["layers", "cheap"])
def test_gradients_stay_and_only_layers_multiply_twice(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    what: Literal["layers", "cheap"],
) -> None:
    batch = make_batch(tokenizer, ["Findings: 12 mm nodule."], [random_frames(4, 56, 84)])
    reference, once = step(qwen, batch, "none")
    gradients, operations = step(qwen, batch, what)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], atol=1e-6, rtol=1e-5)
    assert (operations == once) is (what == "cheap")
