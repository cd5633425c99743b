from pathlib import Path

import numpy as np
import pytest
import torch

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import read_recipe
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import attached, label_loss
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.train.stage import train
from tests.learn.train.runs import make_recipe


def label_ce(weights: Path, prepared: Prepared) -> float:
    """Of the queries, over all studies of the fixture."""
    qwen, _ = load_model(weights)
    queries = attached(qwen)
    assert queries is not None
    frames = [torch.from_numpy(np.array(prepared.frames(s))) for s in prepared.studies]
    with torch.inference_mode():
        logits = queries(encode_frames(qwen, frames), torch.tensor([[2, 4, 4]] * len(frames)))[1]
        return float(label_loss(logits, torch.tensor([s.labels for s in prepared.studies]).float()))


def test_labels_teach_the_queries_and_reports_the_gate(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    found = []
    for weight in (0.0, 3.0):
        run_dir = tmp_path / f"run-{weight}"
        recipe = make_recipe(
            model={"slice_attention": True}, objective={"label_weight": weight, "beta": 0.0}
        )
        train(run_dir, prepared, pairs_of["origin"], recipe, start)
        found.append(label_ce(run_dir / "best", prepared))
        queries = attached(load_model(run_dir / "best")[0])
        assert queries is not None
        assert queries.gate.detach().abs().max() > 0
    assert found[1] < 0.98 * found[0]


def test_a_label_loss_needs_queries() -> None:
    with pytest.raises(CtscribeError, match=r"label_weight above 0 needs model\.slice_attention"):
        read_recipe("tiny", ("objective.label_weight=0.1",))


def test_queries_learn_beside_adapters_in_half_precision(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    recipe = make_recipe(
        model={"slice_attention": True, "tuning": "lora", "lora_r": 2, "dtype": "bfloat16"},
        objective={"label_weight": 1.0, "beta": 0.0},
        train={"epochs": 1},
    )
    train(tmp_path / "run", prepared, pairs_of["origin"], recipe, start)
    queries = attached(load_model(tmp_path / "run" / "best", "bfloat16")[0])
    assert queries is not None
    assert queries.gate.dtype == torch.float32
    assert queries.gate.detach().abs().max() > 0
    assert label_ce(tmp_path / "run" / "best", prepared) > 0
