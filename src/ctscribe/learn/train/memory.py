"""How much memory a training step takes, and which activation checkpointing that calls for.

Weights, gradients and optimiser state are counted. Activations are measured: one decoder layer of
each kind runs on a few tokens, and what autograd saves is extrapolated to the real number of
tokens. So the estimate takes account of adapters, dtypes and kernels without knowing of them.
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
from ctscribe.learn.model.cross_entropy import ROWS_PER_CHUNK
from ctscribe.learn.train.scorer import SAVED_WHEN_CHEAP

Checkpointing = Literal["none", "cheap", "layers"]
"""What is recomputed in the backward pass; see `scorer.enable_checkpointing`."""
_KNOBS: dict[Checkpointing, str] = {"none": "false", "cheap": "cheap", "layers": "true"}
"""As ``train.gradient_checkpointing`` calls them."""
_MOMENT_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0}
"""Optimiser state of each trainable number; for adafactor see `_adafactor_bytes`."""
_USABLE = 0.9
"""Share of the available memory; the rest is for the allocator and the kernels."""
_PROBED = (64, 128)
"""Numbers of tokens that a layer is measured with, whole chunks of recurrent layers. From two the
part that does not grow with tokens, such as autocast's copies of weights, is told apart."""


@final
@dataclass(frozen=True)
class StepMemory:
    """Estimate in bytes of a step with the longest reports and the largest scans."""

    static: int
    """Weights, gradients and optimiser state."""
    activations: dict[Checkpointing, int]
    """Of one branch of a micro-batch; of both where they share prompts. Fastest way first."""
    available: int | None
    """Memory of the device, the model's weights on it included; None where it is unknown."""
    tokens: int
    """Of that branch."""

    def first_that_fits(self) -> Checkpointing:
        """The fastest way that fits; the leanest where none does or the memory is unknown."""
        if self.available is not None:
            for way, needed in self.activations.items():
                if self.static + needed <= _USABLE * self.available:
                    return way
        return "layers"

    def sentence(self, way: Checkpointing) -> str:
        """The estimate in words, and the way that was chosen."""
        ways = ", ".join(
            f"{size_in_words(needed)} with {_KNOBS[name]}"
            for name, needed in self.activations.items()
        )
        found = "an unknown amount" if self.available is None else size_in_words(self.available)
        return (
            f"Memory: {size_in_words(self.static)} for weights, gradients and optimiser; beside it "
            f"{ways} of train.gradient_checkpointing for {self.tokens:,} tokens at once; {found} "
            f"at hand; it is {_KNOBS[way]}"
        )


def step_memory(
    qwen: PreTrainedModel, recipe: Recipe, tokens: int, num_processes: int = 1
) -> StepMemory:
    """The estimate for a model whose tower is frozen and whose trainable weights are chosen.

    ``tokens`` are those of one branch of a micro-batch. Each of ``num_processes`` holds the model.
    """
    device = qwen.lm_head.weight.device
    return StepMemory(
        static_bytes(qwen, recipe.train.optimizer, num_processes),
        activation_bytes(qwen, recipe.model.dtype, tokens, sharing=recipe.pairs.shares_prompts),
        _available_bytes(device, sum(weight.nbytes for weight in qwen.parameters())),
        tokens,
    )


def static_bytes(
    model: nn.Module, optimizer: Literal["adamw", "adamw_8bit", "adafactor"], num_processes: int = 1
) -> int:
    """Weights, gradients and optimiser state of a whole model."""
    # DistributedDataParallel keeps gradients a second time, in buckets
    copies = 1 if num_processes == 1 else 2
    total = 0.0
    for weight in model.parameters():
        total += weight.nbytes
        if weight.requires_grad:
            total += copies * weight.nbytes
            if optimizer in _MOMENT_BYTES:
                total += _MOMENT_BYTES[optimizer] * weight.numel()
            else:
                total += _adafactor_bytes(weight)
    return round(total)


def _adafactor_bytes(weight: Tensor) -> int:
    """Adafactor keeps one float32 number for each row and each column of a matrix."""
    numbers = weight.numel()
    if weight.dim() > 1:
        numbers = numbers // weight.shape[-1] + numbers // weight.shape[-2]
    return 4 * numbers


def activation_bytes(
    qwen: PreTrainedModel,
    dtype: Literal["float32", "bfloat16"],
    tokens: int,
    *,
    sharing: bool = False,
) -> dict[Checkpointing, int]:
    """What one forward pass saves for its backward pass, by what is recomputed there.

    With ``sharing`` it includes the most that `losses_of_both` adds for the negatives.
    """
    language, config = qwen.model.language_model, qwen.config.text_config
    kinds = [set(dict(layer.named_children())) for layer in language.layers]
    of_kind = {
        number: _layer_bytes(language, number, dtype, tokens)
        for number in {kinds.index(kind) for kind in kinds}
    }
    layers = [of_kind[kinds.index(kind)] for kind in kinds]
    hidden = tokens * config.hidden_size * qwen.get_input_embeddings().weight.itemsize
    everything, expensive, casts = (sum(parts) for parts in zip(*layers, strict=True))
    largest_layer, layer_inputs = max(layers)[0], len(layers) * hidden
    logits = min(tokens, ROWS_PER_CHUNK) * config.vocab_size * (4 + getattr(torch, dtype).itemsize)
    ends = 4 * hidden + logits  # embeddings, final norm, and the output layer
    if sharing:  # each layer's input, a layer that is recomputed, and keys and values of prompts
        kv_per_hidden = 2 * language.layers[0].self_attn.k_proj.out_features / config.hidden_size
        ends = 2 * ends + largest_layer + round(layer_inputs * (1 + kv_per_hidden))
    return {
        "none": ends + everything,
        "cheap": ends + layer_inputs + expensive + casts + largest_layer,
        "layers": ends + layer_inputs + casts + largest_layer,
    }


def _layer_bytes(
    language: PreTrainedModel, number: int, dtype: Literal["float32", "bfloat16"], tokens: int
) -> tuple[int, int, int]:
    """Bytes a layer saves: in all, of expensive operations, and of weights cast by autocast."""
    probed = [_probe(language, number, dtype, size) for size in _PROBED]
    everything, expensive = (_extrapolate(tokens, sizes) for sizes in zip(*probed, strict=True))
    casts = _extrapolate(0, [both[0] for both in probed])  # kept as long as autocast is on
    return everything, expensive, casts


def _extrapolate(tokens: int, measured: Sequence[int]) -> int:
    """Bytes for a number of tokens, on the line through what was measured at `_PROBED`."""
    per_token = (measured[1] - measured[0]) / (_PROBED[1] - _PROBED[0])
    return round(measured[0] + per_token * (tokens - _PROBED[0]))


def _probe(
    language: PreTrainedModel, number: int, dtype: Literal["float32", "bfloat16"], tokens: int
) -> tuple[int, int]:
    """Bytes that a decoder layer saves for so many tokens: in all, and of expensive operations."""
    layer, embeddings = language.layers[number], language.embed_tokens.weight
    hidden = torch.zeros(
        (1, tokens, embeddings.shape[1]), dtype=embeddings.dtype, device=embeddings.device
    ).requires_grad_()
    places = torch.arange(tokens, device=hidden.device).expand(3, 1, -1)
    autocast = torch.autocast(hidden.device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    saved, expensive = _SavedBytes(language), _ExpensiveBytes()
    hooks = torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor)
    with autocast, expensive, hooks:
        layer(
            hidden,
            attention_mask=None,
            position_embeddings=language.rotary_emb(hidden, places),
            use_cache=False,
        )
    return saved.total, expensive.total


@final
class _SavedBytes:
    """Sums the tensors that autograd saves: each storage once, the model's weights not at all."""

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
class _ExpensiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the outputs of the operations in `SAVED_WHEN_CHEAP`."""

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
        output = func(*args, **(kwargs or {}))
        if func in SAVED_WHEN_CHEAP:
            outputs = output if isinstance(output, tuple | list) else (output,)
            self.total += sum(each.nbytes for each in outputs if isinstance(each, Tensor))
        return output


def _available_bytes(device: torch.device, weights: int) -> int | None:
    """Memory that this process can use on the device; ``weights`` are the bytes it holds there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    free = available_bytes()
    return None if free is None else free + weights
