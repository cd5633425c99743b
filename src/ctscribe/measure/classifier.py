"""A RadBERT-type classifier: a text encoder and a head over the 18 findings.

As CT-CLIP's text classifier (arXiv:2403.17834): pooled output → linear layer → sigmoid, present
from 0.5, texts cut at 512 tokens. The head lies beside the encoder, or in one file with it as
transformers keeps a model for sequence classification.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float32

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file, sha256_of_json
from ctscribe.text.findings import FINDINGS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    Logits: TypeAlias = Callable[[BatchEncoding], Tensor]

MAX_TOKENS = 512
"""What the classifier reads of a text, its two special tokens among them."""
_MODEL, _HEAD = "model.safetensors", "head.safetensors"
_BATCH = 16
TellTruncated = Callable[[int, int], None]
"""Called with how many texts were cut, and of how many."""


@final
class Classifier:
    """Texts → findings, by an encoder and a head of one folder.

    Args:
        folder: ``config.json``, ``model.safetensors`` and a tokenizer, as transformers saves them.
            Either it is an encoder, and ``head.safetensors`` has ``classifier.weight`` (18 ×
            hidden size) and ``classifier.bias`` (18), rows in `FINDINGS` order; or it is a model
            for sequence classification with 18 labels, which, where they have names, are the
            findings in any order.
        tell: Hears after each reading how many texts were cut.

    Raises:
        CtscribeError: ``E_MISSING``, or ``E_WEIGHTS`` for files that do not load, a head of
            another shape, labels that are not the findings, or weights that are not there.
    """

    def __init__(self, folder: Path, tell: TellTruncated) -> None:
        for name in ("config.json", _MODEL):
            _require(folder, name)
        kept_in = _HEAD if (folder / _HEAD).is_file() else _MODEL
        tensors = _names_of_tensors(folder)
        if kept_in == _MODEL and not any(name.startswith("classifier.") for name in tensors):
            _require(folder, _HEAD)
        # A pooled output under one layer is what CT-CLIP trains, whatever the encoder's own head.
        is_linear = "classifier.weight" in tensors and any(".pooler." in name for name in tensors)
        if kept_in == _HEAD or is_linear:
            model, self._tokenizer = _load(folder, "AutoModel")
            self._logits = _with_head(model, folder, kept_in)
        else:
            model, self._tokenizer = _load(folder, "AutoModelForSequenceClassification")
            self._logits = lambda batch: model(**batch).logits
        in_order = [*range(len(FINDINGS))]
        self._places = in_order if kept_in == _HEAD else _places(model.config, folder)
        told = [sha256_of_file(folder / name) for name in dict.fromkeys((_MODEL, kept_in))]
        if self._places != in_order:
            told += map(str, self._places)
        self.name = f"classifier:{sha256_of_json(told)[:8]}"
        """For signatures; stays the same wherever the folder lies."""
        self._max_tokens = _max_tokens(model.config)
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
                found[chosen] = torch.sigmoid(self._logits(batch)[:, self._places]).numpy()
        return found


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise CtscribeError(
            "E_MISSING",
            f"{folder} must hold a classifier with config.json, {_MODEL}, a tokenizer and a head, "
            f"but lacks {name}",
        )


def _names_of_tensors(folder: Path) -> frozenset[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / _MODEL, "pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError) as error:
        raise _bad(folder, f"{_MODEL} is no safetensors file") from error


def _load(folder: Path, kind: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    import torch
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is told below
    try:
        model, loading = getattr(transformers, kind).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _bad(folder, f"transformers cannot load it ({_first_line(error)})") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(loading["missing_keys"])
    if missing:
        raise _bad(folder, f"model.safetensors lacks {missing[0]} and has {len(missing)} too few")
    return model.eval(), tokenizer


def _places(config: Any, folder: Path) -> list[int]:  # noqa: ANN401 - each encoder has its own class
    """Where a model for sequence classification has each of `FINDINGS`."""
    names = [str(config.id2label[place]).casefold() for place in range(config.num_labels)]
    if len(names) != len(FINDINGS):
        raise _bad(folder, f"config.json has {len(names)} labels")
    if all(re.fullmatch(r"(?:label_)?\d+", name) for name in names):
        return [*range(len(FINDINGS))]
    for finding in FINDINGS:
        if finding.casefold() not in names:
            raise _bad(folder, f"none of the labels in config.json is {finding}")
    return [names.index(finding.casefold()) for finding in FINDINGS]


def _with_head(encoder: "PreTrainedModel", folder: Path, kept_in: str) -> "Logits":
    """The logits of an encoder's pooled output under a linear layer."""
    weight, bias = _load_head(folder / kept_in, int(encoder.config.hidden_size))
    return lambda batch: encoder(**batch).pooler_output @ weight.T + bias


def _load_head(path: Path, hidden_size: int) -> "tuple[Tensor, Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        head = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _bad(path.parent, f"{path.name} is no safetensors file") from error
    shapes = {"classifier.weight": (len(FINDINGS), hidden_size), "classifier.bias": (18,)}
    for name, shape in shapes.items():
        if name not in head or tuple(head[name].shape) != shape:
            found = tuple(head[name].shape) if name in head else "nothing"
            fault = f"{path.name} has {found} as {name}, where {shape} belongs"
            raise _bad(path.parent, fault)
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
