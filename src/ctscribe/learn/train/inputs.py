"""What a training run reads: its pairs, their visual inputs, and the request that they make up."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLForConditionalGeneration, TrainingArguments

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, read_rows
from ctscribe.base.types import Strategy
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.features import frames_of, store_features
from ctscribe.learn.pairs.dataset import VisualSource, strategy_of
from ctscribe.learn.train.arguments import pairs_per_update, sharding_asked


def request_of(
    recipe: Recipe, arguments: TrainingArguments, pairs_path: Path, start: str | Path | None
) -> dict[str, Any]:
    """What a run folder is identified by: recipe, pairs, start, size of an update.

    Raises:
        CtscribeError: ``E_MISSING`` without pairs.
    """
    if not pairs_path.is_file():
        raise CtscribeError("E_MISSING", f"{pairs_path} must exist, as `ctscribe pairs` writes it")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "pairs_sha256": sha256_of_file(pairs_path),
        "start": None if start is None else _fingerprint(Path(start)),
        "pairs_per_update": pairs_per_update(arguments),
        # the checkpoints of a sharded run are read by sharded runs alone
        **({"sharded": True} if sharding_asked() else {}),
    }


def _fingerprint(start: Path) -> str:
    """Hash of the starting weights, so that the folder may move; its name where it has none."""
    weights = sorted(start.glob("*.safetensors"))
    return "+".join(sha256_of_file(path)[:16] for path in weights) or start.name


def read_pairs(pairs_path: Path, strategy: Strategy) -> list[PairRow]:
    """Reads ``pairs.jsonl`` and refuses negatives of another kind than the recipe's.

    Raises:
        CtscribeError: ``E_PAIRS``, ``E_MISSING``, ``E_ROW``.
    """
    rows = read_rows(pairs_path, PairRow)
    found = strategy_of(rows)
    if found != strategy:
        raise CtscribeError(
            "E_PAIRS",
            f"{pairs_path} must hold the recipe's pairs.strategy {strategy}, but it holds {found}",
        )
    for row in rows:
        if row.role == "negative" and row.volume is not None and row.disputed is None:
            raise CtscribeError(
                "E_PAIRS",
                f"a negative must name the findings that it disputes, but that of {row.study} in "
                f"{pairs_path} does not; run pairs again",
            )
    return rows


def visual_source(
    qwen: Qwen2_5_VLForConditionalGeneration,
    prepared: Prepared,
    rows: Sequence[PairRow],
    recipe: Recipe,
) -> VisualSource:
    """Stored features of all volumes that the rows may show, or frames where the tower learns."""
    if not recipe.model.freeze_tower:
        return partial(frames_of, prepared)
    shown = {name for row in rows for name in (row.volume or row.study, *(row.alternatives or ()))}
    store = store_features(
        qwen,
        prepared,
        [study for study in prepared.studies if study.volume_name in shown],
        noise=any(row.noise_seed is not None for row in rows),
        merged=recipe.model.freeze_merger,
    )
    return store.visual
