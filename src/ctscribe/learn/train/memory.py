"""What a training step takes of memory, told before the first one, and what it shall compute again.

What is held throughout is counted. What one branch keeps for its backward pass is measured: a
decoder layer of each kind runs on a few tokens, and what autograd holds of them grows with the
tokens. So the estimate knows of adapters, number types and kernels what the layer itself knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from ctscribe.base.files import size_in_words
from ctscribe.base.recipe import Recipe
from ctscribe.data.engines.local import available_bytes
from ctscribe.learn.train.scorer import EXPENSIVE

Recomputed = Literal["none", "cheap", "layers"]
_KNOBS: dict[Recomputed, str] = {"none": "false", "cheap": "cheap", "layers": "true"}
_MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.0}
"""Bytes for each number that learns."""
_USABLE = 0.9
"""Of the memory at hand; the rest is the allocator's and the kernels'."""
_PROBED = (64, 128)
"""Tokens, in the whole chunks of recurrent layers; what does not grow between them, such as narrow
copies of weights, is told apart."""
_LOGIT_ROWS = 1024
"""For which logits exist at once, as in `learn.model.cross_entropy`."""


@final
@dataclass(frozen=True)
class StepMemory:
    """Estimate in bytes of a step with the longest reports and the largest scans."""

    held: int
    """Weights, gradients, and what the optimiser remembers."""
    branch: dict[Recomputed, int]
    """What one branch of a micro-batch takes beside it, by what is computed again; both branches
    where they share prompts."""
    at_hand: int | None
    """On the device, what the model's weights take included; None where nobody says."""
    tokens: int
    """Of that branch."""

    def first_that_fits(self) -> Recomputed:
        """The fastest way that fits; the one that takes least where none does, or nobody knows."""
        if self.at_hand is not None:
            for way, taken in self.branch.items():
                if self.held + taken <= _USABLE * self.at_hand:
                    return way
        return "layers"

    def sentence(self, way: Recomputed) -> str:
        """The estimate, with the way that is taken."""
        ways = ", ".join(
            f"{size_in_words(taken)} with {_KNOBS[name]}" for name, taken in self.branch.items()
        )
        found = "an unknown amount" if self.at_hand is None else size_in_words(self.at_hand)
        return (
            f"Memory: {size_in_words(self.held)} for weights, gradients and optimiser; beside it "
            f"{ways} of train.gradient_checkpointing for {self.tokens:,} tokens at once; {found} "
            f"at hand; it is {_KNOBS[way]}"
        )


def step_memory(
    qwen: PreTrainedModel, recipe: Recipe, tokens: int, num_processes: int = 1
) -> StepMemory:
    """The estimate for a model whose weights to learn are chosen and whose tower stays as it is.

    ``tokens`` are those of one branch of a micro-batch; ``num_processes`` hold the model each.
    """
    device = qwen.lm_head.weight.device
    return StepMemory(
        held_bytes(qwen, recipe.train.optimizer, num_processes),
        branch_bytes(qwen, recipe.model.dtype, tokens, sharing=recipe.pairs.shares_prompts),
        _at_hand(device, sum(weight.nbytes for weight in qwen.parameters())),
        tokens,
    )


def held_bytes(
    model: nn.Module, optimizer: Literal["adamw", "adamw_8bit", "adafactor"], num_processes: int = 1
) -> int:
    """Weights, gradients and the optimiser's memory of a whole model."""
    # DistributedDataParallel keeps gradients a second time, in buckets
    copies = 1 if num_processes == 1 else 2
    total = 0.0
    for weight in model.parameters():
        total += weight.nbytes
        if weight.requires_grad:
            total += copies * weight.nbytes
            total += (
                _MOMENTS[optimizer] * weight.numel() if optimizer in _MOMENTS else _sums(weight)
            )
    return round(total)


def _sums(weight: Tensor) -> int:
    """Adafactor's: one number for each row and each column."""
    numbers = weight.numel()
    if weight.dim() > 1:
        numbers = numbers // weight.shape[-1] + numbers // weight.shape[-2]
    return 4 * numbers


def branch_bytes(
    qwen: PreTrainedModel,
    dtype: Literal["float32", "bfloat16"],
    tokens: int,
    *,
    sharing: bool = False,
) -> dict[Recomputed, int]:
    """What one forward pass keeps for its backward pass, by what is computed again.

    With ``sharing`` also of the negatives behind it what `losses_of_both` keeps, at most.
    """
    language, config = qwen.model.language_model, qwen.config.text_config
    kinds = [set(dict(layer.named_children())) for layer in language.layers]
    of_kind = {
        number: _layer_bytes(language, number, dtype, tokens)
        for number in {kinds.index(kind) for kind in kinds}
    }
    layers = [of_kind[kinds.index(kind)] for kind in kinds]
    enters = tokens * config.hidden_size * qwen.get_input_embeddings().weight.itemsize
    every, cheap, copies = (sum(parts) for parts in zip(*layers, strict=True))
    whole, inputs = max(layers)[0], len(layers) * enters  # of one layer; of all
    logits = min(tokens, _LOGIT_ROWS) * config.vocab_size * (4 + getattr(torch, dtype).itemsize)
    ends = 4 * enters + logits  # embeddings, final norm, and what the output layer makes
    if sharing:  # each layer's input, a layer that runs again, and keys and values of prompts
        seen = 2 * language.layers[0].self_attn.k_proj.out_features / config.hidden_size
        ends = 2 * ends + whole + round(inputs * (1 + seen))
    return {
        "none": ends + every,
        "cheap": ends + inputs + cheap + copies + whole,
        "layers": ends + inputs + copies + whole,
    }


def _layer_bytes(
    language: PreTrainedModel, number: int, dtype: Literal["float32", "bfloat16"], tokens: int
) -> tuple[int, int, int]:
    """Of everything that a layer keeps, of what is expensive, and of narrow copies of weights."""
    probed = [_probe(language, number, dtype, size) for size in _PROBED]
    whole, cheap = (_line(tokens, several) for several in zip(*probed, strict=True))
    copies = _line(0, [all_of_it for all_of_it, _ in probed])  # autocast keeps them to its end
    return whole, cheap, copies


def _line(tokens: int, values: Sequence[int]) -> int:
    per_token = (values[1] - values[0]) / (_PROBED[1] - _PROBED[0])
    return round(values[0] + per_token * (tokens - _PROBED[0]))


def _probe(
    language: PreTrainedModel, number: int, dtype: Literal["float32", "bfloat16"], tokens: int
) -> tuple[int, int]:
    """Bytes that a decoder layer keeps of some tokens: of everything, and of what is expensive."""
    layer, embeddings = language.layers[number], language.embed_tokens.weight
    hidden = torch.zeros(
        (1, tokens, embeddings.shape[1]), dtype=embeddings.dtype, device=embeddings.device
    ).requires_grad_()
    places = torch.arange(tokens, device=hidden.device).expand(3, 1, -1)
    narrow = torch.autocast(hidden.device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    kept, expensive = _Kept(language), _Expensive()
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor)
    with narrow, expensive, hooks:
        layer(
            hidden,
            attention_mask=None,
            position_embeddings=language.rotary_emb(hidden, places),
            use_cache=False,
        )
    return kept.total, expensive.total


@final
class _Kept:
    """Adds up what autograd keeps, each storage once and weights not at all."""

    def __init__(self, model: nn.Module) -> None:
        self._seen = {each.untyped_storage().data_ptr() for each in model.parameters()}
        self.total = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor


@final
class _Expensive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what matrix products and attention give, which `recompute` keeps as cheap."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        found = func(*args, **(kwargs or {}))
        if func in EXPENSIVE:
            several = found if isinstance(found, tuple | list) else (found,)
            self.total += sum(each.nbytes for each in several if isinstance(each, Tensor))
        return found


def _at_hand(device: torch.device, weights: int) -> int | None:
    """What the device has for this process, what the weights on it take included."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    free = available_bytes()
    return None if free is None else free + weights
