"""Which weights learn, at which rate and in which precision, and what is computed again."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2MLP

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import read_recipe
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import finding_queries_of, label_loss
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.train.scorer import enable_checkpointing
from tests.learn.model.batches import make_batch, random_frames
from tests.learn.train.runs import Train, assert_equal_runs, make_recipe, weights


@pytest.mark.parametrize("freeze_tower", [True, False])
def test_the_tower_learns_only_when_asked_to(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path, freeze_tower: bool
) -> None:
    recipe = make_recipe(model={"freeze_tower": freeze_tower}, train={"epochs": 1})
    run(tmp_path / "run", pairs_of["gauss"], recipe)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("model.layers") for name in changed)
    tower = {name for name in before if name.startswith("visual.")}
    assert tower
    assert bool(changed & tower) is not freeze_tower
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert any(".visual." in name for name in saved) is not freeze_tower


def test_tower_and_merger_learn_apart_at_their_own_rates(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    before = weights(start)
    rates = {"learning_rate": 1e-3, "tower_learning_rate": 1e-5, "merger_learning_rate": 1e-4}
    for tower, merger in ((True, False), (False, True), (False, False)):
        model = {"freeze_tower": tower, "freeze_merger": merger}
        folder = tmp_path / f"{tower}-{merger}"
        train_ = {"epochs": 1, **rates, "gradient_accumulation_steps": 12, "warmup_ratio": 0.0}
        run(folder, pairs_of["heter"], make_recipe(model=model, train=train_))
        after = weights(folder / "best")
        moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
        parts = {
            "merger": max(moved[n] for n in moved if n.startswith("visual.merger.")),
            "blocks": max(moved[n] for n in moved if n.startswith("visual.blocks.")),
            "language": max(moved[n] for n in moved if n.startswith("model.layers.")),
        }
        # AdamW's first update moves a weight by its learning rate
        assert parts["merger"] == pytest.approx(0 if merger else 1e-4, rel=0.02)
        assert parts["blocks"] == pytest.approx(0 if tower else 1e-5, rel=0.02)
        assert parts["language"] == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize("what", [True, "cheap"])
def test_checkpointed_activations_run_twice_and_change_no_loss(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], what: bool | str
) -> None:
    mlps, products = [], []
    for name, asked in (("kept", False), ("again", what)):
        knobs = {"epochs": 1, "gradient_checkpointing": asked}
        recipe = make_recipe(model={"freeze_tower": False}, train=knobs)
        with FlopCounterMode(display=False) as counter, counted_mlps() as passes:
            run(tmp_path / name, pairs_of["heter"], recipe)
        mlps.append(len(passes))
        products.append(counter.get_total_flops())
    assert mlps[1] > mlps[0]
    assert (products[1] == products[0]) is (what == "cheap")
    assert_equal_runs(tmp_path / "kept", tmp_path / "again", tolerance=1e-5)


@contextmanager
def counted_mlps() -> Iterator[list[None]]:
    """One entry for each time that an MLP of the language model runs meanwhile."""
    passes: list[None] = []
    real = Qwen2MLP.forward

    def forward(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        passes.append(None)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen2MLP, "forward", forward)
        yield passes


def test_adapters_touch_the_language_side_alone(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    recipe = make_recipe(
        model={"tuning": "lora", "lora_r": 4, "lora_alpha": 8}, train={"epochs": 1}
    )
    run(tmp_path / "run", pairs_of["heter"], recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert all(".language_model.layers." in name and ".lora_" in name for name in saved)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    learned = load_file(tmp_path / "run" / "best" / "adapters.safetensors")
    assert len(learned) == len(saved)
    assert all(weight.any() for weight in learned.values())


def test_bfloat16_keeps_learning_weights_in_full(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    recipe = make_recipe(model={"dtype": "bfloat16"}, train={"epochs": 1, "learning_rate": 1e-5})
    run(tmp_path / "run", pairs_of["origin"], recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    norm = next(
        weight for name, weight in saved.items() if name.endswith("language_model.norm.weight")
    )
    assert not torch.equal(norm, torch.ones_like(norm))
    assert (norm - 1).abs().max() < 1e-4


def label_ce(folder: Path, prepared: Prepared) -> float:
    """Of the queries, over all studies of the fixture."""
    qwen, _ = load_model(folder)
    queries = finding_queries_of(qwen)
    assert queries is not None
    frames = [torch.from_numpy(np.array(prepared.frames(s))) for s in prepared.studies]
    with torch.inference_mode():
        logits = queries(encode_frames(qwen, frames), torch.tensor([[2, 4, 4]] * len(frames)))[1]
        return float(label_loss(logits, torch.tensor([s.labels for s in prepared.studies]).float()))


def test_labels_teach_the_queries_and_reports_the_gate(
    tmp_path: Path, prepared: Prepared, run: Train, pairs_of: dict[str, Path]
) -> None:
    found = []
    for weight in (0.0, 3.0):
        run_dir = tmp_path / f"run-{weight}"
        recipe = make_recipe(
            model={"slice_attention": True}, objective={"label_weight": weight, "beta": 0.0}
        )
        run(run_dir, pairs_of["origin"], recipe)
        found.append(label_ce(run_dir / "best", prepared))
        queries = finding_queries_of(load_model(run_dir / "best")[0])
        assert queries is not None
        assert queries.gate.detach().abs().max() > 0
    assert found[1] < 0.98 * found[0]


def test_a_label_loss_needs_queries() -> None:
    with pytest.raises(CtscribeError, match=r"label_weight above 0 needs model\.slice_attention"):
        read_recipe("tiny", ("objective.label_weight=0.1",))


def test_queries_learn_beside_adapters_in_half_precision(
    tmp_path: Path, prepared: Prepared, run: Train, pairs_of: dict[str, Path]
) -> None:
    recipe = make_recipe(
        model={"slice_attention": True, "tuning": "lora", "lora_r": 2, "dtype": "bfloat16"},
        objective={"label_weight": 1.0, "beta": 0.0},
        train={"epochs": 1},
    )
    run(tmp_path / "run", pairs_of["origin"], recipe)
    queries = finding_queries_of(load_model(tmp_path / "run" / "best", "bfloat16")[0])
    assert queries is not None
    assert queries.gate.dtype == torch.float32
    assert queries.gate.detach().abs().max() > 0
    assert label_ce(tmp_path / "run" / "best", prepared) > 0


def gradients_of(
    qwen: Qwen2_5_VLForConditionalGeneration,
    batch: dict[str, Any],
    what: Literal["none", "layers", "cheap"],
) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients, and the operations of the products that made them."""
    model = deepcopy(qwen).train()
    if what != "none":
        enable_checkpointing(model, what)
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
    reference, once = gradients_of(qwen, batch, "none")
    gradients, operations = gradients_of(qwen, batch, what)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], atol=1e-6, rtol=1e-5)
    assert (operations == once) is (what == "cheap")
