"""Saving and loading models: a folder is written completely or not at all, and read strictly."""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    Sizes,
    brief,
    changed_file,
    measure_files,
    object_in,
    parse_json,
    read_bytes,
    read_json,
    write_json,
    write_plain_json,
)
from ctscribe.learn.model.adapters import (
    ADAPTER_CONFIG,
    ADAPTERS,
    adapter_config,
    adapter_state,
    base_state,
    restore_adapters,
)
from ctscribe.learn.model.families import BACKBONES, TITLES, backbone_of
from ctscribe.learn.model.finding_queries import ATTENTION_FILE, attach_finding_queries
from ctscribe.learn.model.packing import trim_last_layer
from ctscribe.learn.model.presets import HUB_IDS
from ctscribe.learn.model.projector import (
    ENCODER_FILE,
    PROJECTOR_FILE,
    attach_projector,
    projector_of,
    read_encoder,
)
from ctscribe.learn.model.tower import speed_up_tower

MARKER = "checkpoint.json"
"""Written with ``complete: false`` before anything else, and at the end with bytes and CRC-32 of
all files."""
_MERGED = "merged_into_weights"
"""False in the adapters' settings; earlier versions stored merged weights and lack this key."""
_NEW_KEYS = ("backend", "extra_special_tokens", "is_local", "local_files_only")
"""Keys of a tokenizer's configuration that older releases of transformers do not know."""


def save_model(
    folder: Path,
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    extras: Mapping[str, Mapping[str, Tensor]] | None = None,
    documents: Mapping[str, object] | None = None,
) -> None:
    """Writes weights, configuration and tokenizer into a folder, as Hugging Face's tools read them.

    Weights have the names of the published checkpoints; configuration and tokenizer can also be
    read by older releases. Adapters, finding queries and an encoder's projector are in files of
    their own beside the base weights, which only `load_model` reads; `publish` merges adapters for
    other tools.

    The folder is built beside its final place and swapped in when complete, so an interruption
    leaves the earlier one. Where weights are sharded, all processes call it, and the first writes.

    Args:
        folder: Final place; what is there is replaced.
        qwen: Stays unchanged.
        tokenizer: The model's.
        extras: Further tensors, by file name.
        documents: Further JSON documents, by file name.

    Raises:
        CtscribeError: ``E_WRITE`` when the disk is full or the place not writable.
    """
    weights, ours, adapters = _split_state(qwen)
    if is_sharded(qwen) and not is_first_process():
        return
    with _built_beside(folder) as partial:
        write_json(partial / MARKER, {"complete": False})
        qwen.save_pretrained(partial, state_dict=weights, max_shard_size="5GB")
        tokenizer.save_pretrained(partial)
        if adapters:
            extras = {ADAPTERS: adapters, **(extras or {})}
            settings = {_MERGED: False, **adapter_config(qwen)}
            documents = {ADAPTER_CONFIG: settings, **(documents or {})}
        if (projector := projector_of(qwen)) is not None:
            documents = {ENCODER_FILE: asdict(projector.encoder), **(documents or {})}
        for name, tensors in {**(extras or {}), **ours}.items():
            save_file({key: t.detach().contiguous() for key, t in tensors.items()}, partial / name)
        for name, document in (documents or {}).items():
            write_plain_json(partial / name, document)
        _write_older_names(partial, backbone_of(qwen).older_rope)
        files = measure_files(partial, MARKER)
        write_json(partial / MARKER, {"complete": True, "files": files})


@contextmanager
def _built_beside(folder: Path) -> Iterator[Path]:
    """Yields a new folder, which replaces ``folder`` when the block succeeds."""
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _swap(partial, folder)
    except (OSError, SafetensorError) as error:
        raise CtscribeError(
            "E_WRITE", f"the checkpoint {folder} must be writable, but {error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _split_state(
    qwen: PreTrainedModel,
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The published model's weights; tensors of our own modules, by file name; the adapters."""
    weights, adapters = base_state(qwen), gather(adapter_state(qwen))
    if qwen.lm_head.weight is qwen.get_input_embeddings().weight:
        weights.pop("lm_head.weight")  # tied: gathered twice, they would be saved as two tensors
    parts = {ATTENTION_FILE: "slice_attention.", PROJECTOR_FILE: "encoder_projector."}
    ours = {}
    for file, part in parts.items():
        if names := [name for name in weights if name.startswith(part)]:
            ours[file] = gather({name.removeprefix(part): weights.pop(name) for name in names})
    return gather(weights), ours, adapters


def _write_older_names(folder: Path, older_rope: Mapping[str, Any]) -> None:
    """Rewrites a saved model's JSON files so that older releases read the same model.

    Without them 4.57 loses MRoPE, gives a tied output layer random weights, and refuses the
    tokenizer. What 5.x reads stays, or 5.x reads it under the older name too.
    """
    config = read_json(folder / "config.json")
    text = config["text_config"]
    rope = text["rope_parameters"]
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {**older_rope, "mrope_section": rope["mrope_section"]}
    text["tie_word_embeddings"] = config["tie_word_embeddings"]
    write_plain_json(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    write_plain_json(path, _older_tokenizer(read_json(path)))


def _older_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    older = {key: value for key, value in config.items() if key not in _NEW_KEYS}
    if older["tokenizer_class"] == "TokenizersBackend":
        older["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        older["additional_special_tokens"] = config["extra_special_tokens"]
    return older


def _swap(partial: Path, folder: Path) -> None:
    previous = folder.with_name(f".{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def load_model(
    source: str | Path, dtype: torch.dtype | str = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model and its tokenizer, with adapters and our own modules beside the weights.

    ``source`` is a folder, a hub id, or the name of a preset with public weights; ``dtype`` is the
    dtype of weights and activations.

    Raises:
        CtscribeError: ``E_WEIGHTS`` when there is nothing to load, no network, an incomplete or
            damaged checkpoint, or weights of another model.
    """
    name = HUB_IDS.get(str(source), str(source))
    folder = Path(name)
    if str(source) == "tiny":
        raise CtscribeError(
            "E_WEIGHTS",
            "the tiny preset must start from what `ctscribe warm-up` writes, but nothing is given",
        )
    is_local = folder.is_dir() or folder.is_absolute() or name.count("/") != 1
    if is_local:
        _check_folder(folder)
    with foreign_weights(name):
        if is_local:
            _check_size(folder)
        # a hub id is looked up only when no folder of that name exists
        config = AutoConfig.from_pretrained(
            name, local_files_only=is_local, trust_remote_code=False
        )
        _check_config(name, config)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, local_files_only=is_local
        )
        qwen, loading = backbone_of(config).model.from_pretrained(
            name, dtype=dtype, output_loading_info=True, local_files_only=is_local
        )
        _check_loading(name, loading)
        _check_tokenizer(name, tokenizer, config.video_token_id)
        speed_up_tower(qwen)
        trim_last_layer(qwen)
        if is_local:
            _add_own_modules(qwen, folder)
    return qwen, tokenizer


@contextmanager
def foreign_weights(name: str) -> Iterator[None]:
    """Turns any error of other libraries while loading ``name`` into one `CtscribeError`.

    They raise many types of errors for bad files.

    Raises:
        CtscribeError: ``E_WEIGHTS``, or what the block raises itself.
    """
    try:
        yield
    except (CtscribeError, MemoryError):
        raise
    except Exception as error:
        raise CtscribeError(
            "E_WEIGHTS",
            f"{name} must hold {TITLES} weights, configuration and tokenizer, but "
            f"{_first_sentence(error)}",
        ) from error


def _add_own_modules(qwen: PreTrainedModel, folder: Path) -> None:
    """Adds projector, finding queries and adapters from the files beside the weights, if any."""
    if (folder / PROJECTOR_FILE).exists():
        projector = attach_projector(qwen, read_encoder(folder / ENCODER_FILE))
        projector.load_state_dict(load_file(folder / PROJECTOR_FILE))
    if (folder / ATTENTION_FILE).exists():
        attach_finding_queries(qwen).load_state_dict(load_file(folder / ATTENTION_FILE))
    if (settings := read_adapter_config(folder)) is not None:
        restore_adapters(qwen, settings, load_file(folder / ADAPTERS))


def read_adapter_config(folder: Path) -> dict[str, Any] | None:
    """Settings of a folder's adapters; None where there are none, or they are already merged.

    Earlier versions wrote adapters beside weights that they were merged into.
    """
    if not (folder / ADAPTERS).is_file():
        return None
    settings: dict[str, Any] = read_json(folder / ADAPTER_CONFIG)
    return settings if settings.pop(_MERGED, True) is False else None


def _check_folder(folder: Path) -> None:
    """Checks a folder of ours against its checksums, and that any folder has the files needed."""
    previous = folder.with_name(f".{folder.name}.previous")
    if not folder.exists() and is_complete(previous):
        previous.rename(folder)  # the swap was interrupted between its two renames
    if not folder.is_dir():
        raise CtscribeError(
            "E_WEIGHTS", f"{folder} must be a folder with {TITLES} weights, but there is none"
        )
    require_whole(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("model*.safetensors")):
        raise CtscribeError(
            "E_WEIGHTS",
            f"{folder} must hold config.json and model*.safetensors, but it lacks one of them",
        )


def require_whole(folder: Path) -> None:
    """Checks all files of a checkpoint that we wrote against their checksums.

    A published checkpoint has no marker, so nothing is checked.

    Raises:
        CtscribeError: ``E_WEIGHTS``, or ``E_JSON`` where the marker itself is damaged.
    """
    if not (folder / MARKER).exists():
        return
    files, found = _files(folder), None
    if files is None and read_json(folder / MARKER).get("complete"):
        found = (
            "an earlier version wrote it, without checksums (without its checkpoint.json it is "
            "read as a published model)"
        )
    elif files is None:
        found = "its writing was interrupted"
    elif name := changed_file(folder, files):
        found = f"{name} is not what was written: it was changed or damaged since"
    if found:
        raise CtscribeError("E_WEIGHTS", f"the checkpoint {folder} must be complete, but {found}")


def _check_config(name: str, config: PreTrainedConfig) -> None:
    found = config.architectures or ["no architecture"]
    known = BACKBONES.get(config.model_type)
    if known is None or known.model.__name__ not in found:
        raise CtscribeError("E_WEIGHTS", f"{name} must be a {TITLES} model, but it is {found[0]}")
    if quantised := getattr(config, "quantization_config", None):
        kind = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise CtscribeError(
            "E_WEIGHTS",
            f"{name} must hold plain weights, but they are quantised ({kind or 'in some way'})",
        )


def _check_size(folder: Path) -> None:
    """Refuses a configuration of far more weights than are stored, before memory is allocated."""
    stored = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    config = parse_json(read_bytes(folder / "config.json").decode())
    text, tower = {**config, **object_in(config, "text_config")}, object_in(config, "vision_config")
    known = BACKBONES.get(str(config.get("model_type")))
    if known is None:
        return  # refused by its name
    usual = known.model.config_class()
    asked = _num_weights(text, usual.text_config, "num_hidden_layers")
    asked += _num_weights(tower, usual.vision_config, "depth")
    if asked > stored:
        raise CtscribeError(
            "E_WEIGHTS",
            f"{folder} must hold exactly {known.title}'s tensors, but config.json asks for more "
            f"than {asked:.2g} numbers and there are {stored:.2g}",
        )


def _num_weights(config: Mapping[str, Any], usual: PreTrainedConfig, depth: str) -> int:
    """A lower bound for the number of weights in the embedding and layers of one transformer."""
    layers, width, inner, words = (
        int(config.get(key, getattr(usual, key, 0)))
        for key in (depth, "hidden_size", "intermediate_size", "vocab_size")
    )
    return width * (words + layers * (2 * width + 3 * inner))


def _check_loading(name: str, loading: Mapping[str, Any]) -> None:
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(map(str, loading.get(problem, ())))
        if keys:
            raise CtscribeError(
                "E_WEIGHTS",
                f"{name} must hold exactly the tensors of its configuration, but it has "
                f"{len(keys)} {problem.replace('_', ' ')} such as {keys[0]}",
            )


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, video_id: int) -> None:
    if tokenizer.convert_tokens_to_ids("<|video_pad|>") != video_id:
        raise CtscribeError(
            "E_WEIGHTS",
            f"{name} must hold the tokenizer of its model, but <|video_pad|> is not token "
            f"{video_id} there",
        )


def _first_sentence(error: Exception) -> str:
    return brief(error).partition(". ")[0].rstrip(".:;")


def is_complete(folder: Path) -> bool:
    """Whether `save_model` completed this folder and all files still have their sizes."""
    files = _files(folder)
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == num_bytes
        for name, (num_bytes, _) in (files or {}).items()
    )


def _files(folder: Path) -> Sizes | None:
    """Sizes and checksums of the files from the marker; None where it has none."""
    if not (folder / MARKER).is_file():
        return None
    try:
        return TypeAdapter(Sizes).validate_python(read_json(folder / MARKER).get("files"))
    except ValidationError:
        return None


def is_sharded(module: nn.Module) -> bool:
    """Whether its weights are sharded over processes (FSDP2)."""
    return any(isinstance(weight, DTensor) for weight in module.parameters())


def is_first_process() -> bool:
    """Whether this is the process that writes: rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gathers sharded tensors on the CPU of the first process, one after the other.

    All processes must call it. Tensors that are not sharded stay as and where they are.

    Returns:
        In the first process all tensors, in the others those that are not sharded.
    """
    gathered = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            gathered[name] = tensor
            continue
        full = tensor.full_tensor()
        if is_first_process():
            gathered[name] = full.cpu()
    return gathered
