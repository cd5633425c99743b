"""A RadBERT-type classifier: a text encoder and a linear head over the 18 findings.

As CT-CLIP's text classifier (arXiv:2403.17834): pooled output → linear layer → sigmoid, present
from 0.5, texts cut at 512 tokens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from jaxtyping import Bool, Float32

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file, sha256_of_json
from ctscribe.text.findings import FINDINGS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MAX_TOKENS = 512
"""What the classifier reads of a text, its two special tokens among them."""
_HEAD = "head.safetensors"
_BATCH = 16
TellTruncated = Callable[[int, int], None]
"""Called with how many texts were cut, and of how many."""


@final
class Classifier:
    """Texts → findings, by an encoder and a head of one folder.

    Args:
        folder: ``config.json``, ``model.safetensors`` and a tokenizer, as transformers saves
            them, and ``head.safetensors`` with ``classifier.weight`` (18 × hidden size) and
            ``classifier.bias`` (18), rows in `FINDINGS` order.
        tell: Hears after each reading how many texts were cut.

    Raises:
        CtscribeError: ``E_MISSING``, or ``E_WEIGHTS`` for files that do not load, a head of
            another shape or an encoder whose pooled output has no weights.
    """

    def __init__(self, folder: Path, tell: TellTruncated) -> None:
        for name in ("config.json", "model.safetensors", _HEAD):
            if not (folder / name).is_file():
                raise CtscribeError(
                    "E_MISSING",
                    f"{folder} must hold a classifier with config.json, model.safetensors, a "
                    f"tokenizer and {_HEAD}, but lacks {name}",
                )
        hashes = [sha256_of_file(folder / name) for name in ("model.safetensors", _HEAD)]
        self.name = f"classifier:{sha256_of_json(hashes)[:8]}"
        """For signatures; stays the same wherever the folder lies."""
        self._encoder, self._tokenizer = _load_encoder(folder)
        self._weight, self._bias = _load_head(folder, int(self._encoder.config.hidden_size))
        self._max_tokens = _max_tokens(self._encoder.config)
        self._tell = tell

    def read(self, texts: Sequence[str]) -> Bool[np.ndarray, "texts 18"]:
        """Whether each text states each finding: probability at least 0.5."""
        return self.probabilities(texts) >= 0.5

    def probabilities(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts 18"]:
        """Probability of each finding in each text."""
        import torch

        tokens = [self._tokenizer(text, verbose=False)["input_ids"] for text in texts]
        self._tell(sum(len(ids) > self._max_tokens for ids in tokens), len(tokens))
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        found = np.zeros((len(texts), len(FINDINGS)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                chosen = order[start : start + _BATCH]
                batch = self._tokenizer(
                    [texts[i] for i in chosen],
                    truncation=True,
                    max_length=self._max_tokens,
                    padding=True,
                    return_tensors="pt",
                )
                logits = self._encoder(**batch).pooler_output @ self._weight.T + self._bias
                found[chosen] = torch.sigmoid(logits).numpy()
        return found


def _load_encoder(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is told below
    try:
        encoder, loading = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _bad(folder, f"transformers cannot load it ({_first_line(error)})") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(loading["missing_keys"])
    if missing:
        raise _bad(folder, f"model.safetensors lacks {missing[0]} and has {len(missing)} too few")
    return encoder.eval(), tokenizer


def _load_head(folder: Path, hidden_size: int) -> "tuple[Tensor, Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        head = load_file(folder / _HEAD)
    except (SafetensorError, OSError) as error:
        raise _bad(folder, f"{_HEAD} is no safetensors file") from error
    shapes = {"classifier.weight": (len(FINDINGS), hidden_size), "classifier.bias": (18,)}
    for name, shape in shapes.items():
        if name not in head or tuple(head[name].shape) != shape:
            found = tuple(head[name].shape) if name in head else "nothing"
            raise _bad(folder, f"{_HEAD} has {found} as {name}, where {shape} belongs")
    weight, bias = (head[name].to(torch.float32) for name in shapes)
    return weight, bias


def _max_tokens(config: Any) -> int:  # noqa: ANN401 - each encoder has its own class
    # RoBERTa counts positions from behind its padding id.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    return min(MAX_TOKENS, int(getattr(config, "max_position_embeddings", MAX_TOKENS)) - offset)


def _bad(folder: Path, what: str) -> CtscribeError:
    return CtscribeError(
        "E_WEIGHTS",
        f"{folder} must hold an encoder with a pooled output and a head over 18 findings, but "
        f"{what}",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
