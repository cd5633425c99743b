"""The stage as a user runs it: on a prepared folder, in one process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback
from ctscribe.model.checkpoint import load_model
from ctscribe.model.qwen import AnswerLosses
from ctscribe.pairs.collate import Batch
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import GapRow, PairRow, StudyRow, read_rows, write_rows
from ctscribe.train import stage
from ctscribe.train.checkpoints import newest_complete
from ctscribe.train.fit import TrainResult
from ctscribe.train.log import MetricsRow
from ctscribe.train.order import EpochsInOrder
from ctscribe.train.scorer import ReportScorer
from ctscribe.train.setup import require_reach
from ctscribe.train.stage import train

MakeRecipe = Callable[..., Recipe]
WritePairs = Callable[[str], Path]
Train = Callable[..., TrainResult]


@pytest.fixture
def run(prepared: Path, start: Path) -> Train:
    def run_(
        folder: Path,
        pairs: Path,
        recipe: Recipe,
        progress: ProgressCallback = lambda done, total: None,
    ) -> TrainResult:
        strategy = recipe.pairs.model_copy(update={"strategy": pairs.parent.name})
        recipe = recipe.model_copy(update={"pairs": strategy})
        return train(folder, prepared, pairs, recipe, start, progress=progress)

    return run_


def metrics(folder: Path) -> list[MetricsRow]:
    return read_rows(folder / "metrics.jsonl", MetricsRow)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal_runs(first: Path, second: Path, tolerance: float) -> None:
    rows = [metrics(first), metrics(second)]
    assert len(rows[0]) == len(rows[1])
    for one, other in zip(*rows, strict=True):
        values = [row.model_dump(exclude_none=True) for row in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=tolerance, rel=tolerance)
    one_model, other_model = weights(first / "best"), weights(second / "best")
    for name, weight in one_model.items():
        torch.testing.assert_close(weight, other_model[name], atol=tolerance, rtol=0)


def test_a_run_leaves_weights_log_and_curve(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe
) -> None:
    told: list[tuple[int, int]] = []
    pairs, recipe = write_pairs("heter"), make_recipe()
    result = run(tmp_path / "run", pairs, recipe, progress=lambda *done: told.append(done))
    assert told == [(step, 6) for step in range(1, 7)]
    rows = metrics(tmp_path / "run")
    assert [row.step for row in rows] == [1, 2, 3, 4, 5, 6]
    validated = {row.step: row.validation_ce for row in rows if row.validation_ce is not None}
    assert set(validated) == {3, 6}
    assert result == TrainResult(min(validated.values()), 6, 6)
    assert rows[-1].positive_ce is not None
    assert rows[0].positive_ce is not None
    assert rows[-1].positive_ce < rows[0].positive_ce - 0.5
    assert rows[-1].gap is not None
    assert rows[-1].gap > 0.05
    load_model(tmp_path / "run" / "best")
    assert (tmp_path / "run" / "loss_curve.png").stat().st_size > 5000
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_finished_run_is_returned_at_once_and_another_request_refused(
    tmp_path: Path,
    run: Train,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs, recipe = write_pairs("origin"), make_recipe(train={"epochs": 1})
    result = run(tmp_path / "run", pairs, recipe)
    monkeypatch.setattr(stage, "load_model", None)
    assert run(tmp_path / "run", pairs, recipe) == result
    with pytest.raises(CtscribeError, match=r"differs in recipe\.train\.epochs"):
        run(tmp_path / "run", pairs, make_recipe(train={"epochs": 2}))
    other = tmp_path / "origin" / "pairs.jsonl"
    write_rows(other, read_rows(pairs, PairRow)[1:])
    with pytest.raises(CtscribeError, match="differs in pairs_sha256"):
        run(tmp_path / "run", other, recipe)


STEERED = {"name": "logistic", "scope": "disputed", "beta_schedule": "steered"}


@pytest.mark.parametrize(
    ("strategy", "objective"), [("heter", STEERED), ("gauss", {}), ("hard", {"name": "hinge"})]
)
def test_an_interrupted_run_continues_exactly(
    tmp_path: Path,
    run: Train,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
    strategy: str,
    objective: dict[str, str],
) -> None:
    pairs, recipe = write_pairs(strategy), make_recipe(objective=objective)
    run(tmp_path / "whole", pairs, recipe)

    def interrupt(step: int, total: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", pairs, recipe, progress=interrupt)
    # What an interruption while saving leaves: a later folder without its marker, and one whose
    # marker does not fit its files.
    later = tmp_path / "cut" / "checkpoint-5"
    shutil.copytree(tmp_path / "cut" / "checkpoint-3", later)
    (later / "optimizer.pt").write_bytes(b"")
    told: list[int] = []
    run(tmp_path / "cut", pairs, recipe, progress=lambda step, _: told.append(step))
    assert told == [4, 5, 6]
    betas = {row.beta for row in metrics(tmp_path / "cut")}
    assert len(betas) == (6 if "beta_schedule" in objective else 1)
    gaps = [sorted((tmp_path / name / "gaps").glob("*")) for name in ("whole", "cut")]
    assert len(gaps[0]) == (2 if strategy == "hard" else 0)
    for whole, cut in zip(*gaps, strict=True):
        rows = [read_rows(path, GapRow) for path in (whole, cut)]
        assert [(r.study, r.volume) for r in rows[0]] == [(r.study, r.volume) for r in rows[1]]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", tolerance=1e-6)


def test_a_capped_negative_costs_nothing_and_changes_nothing(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe
) -> None:
    origin_pairs, heter_pairs = write_pairs("origin"), write_pairs("heter")
    for name, pairs, objective in (
        ("origin", origin_pairs, {}),
        ("capped", heter_pairs, {"max_loss": 0.01}),
        ("beta0", heter_pairs, {"beta": 0.0}),
        ("heter", heter_pairs, {}),
    ):
        run(tmp_path / name, pairs, make_recipe(objective=objective, train={"epochs": 1}))
    origin, heter = weights(tmp_path / "origin" / "best"), weights(tmp_path / "heter" / "best")
    for folder in ("capped", "beta0"):
        same = weights(tmp_path / folder / "best")
        assert all(torch.equal(weight, same[name]) for name, weight in origin.items())
    assert not all(torch.equal(weight, heter[name]) for name, weight in origin.items())
    shares = [(row.share_capped, row.share_skipped) for row in metrics(tmp_path / "capped")]
    assert shares == [(1.0, 1.0)] * 3
    assert all(row.negative_ce is None for row in metrics(tmp_path / "origin"))
    assert all(row.share_skipped == 0 for row in metrics(tmp_path / "heter"))


@pytest.mark.parametrize("freeze_tower", [True, False])
def test_the_tower_learns_only_when_asked_to(
    tmp_path: Path,
    run: Train,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
    start: Path,
    freeze_tower: bool,
) -> None:
    recipe = make_recipe(model={"freeze_tower": freeze_tower}, train={"epochs": 1})
    run(tmp_path / "run", write_pairs("gauss"), recipe)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("model.layers") for name in changed)
    tower = {name for name in before if name.startswith("visual.")}
    assert tower
    assert bool(changed & tower) is not freeze_tower
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert any(".visual." in name for name in saved) is not freeze_tower


def test_tower_and_merger_learn_apart_at_their_own_rates(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe, start: Path
) -> None:
    before = weights(start)
    rates = {"learning_rate": 1e-3, "tower_learning_rate": 1e-5, "merger_learning_rate": 1e-4}
    for tower, merger in ((True, False), (False, True), (False, False)):
        model = {"freeze_tower": tower, "freeze_merger": merger}
        folder = tmp_path / f"{tower}-{merger}"
        train_ = {"epochs": 1, **rates, "gradient_accumulation_steps": 12, "warmup_ratio": 0.0}
        run(folder, write_pairs("heter"), make_recipe(model=model, train=train_))
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
def test_checkpointed_activations_change_no_loss(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe, what: bool | str
) -> None:
    for name, asked in (("kept", False), ("again", what)):
        knobs = {"epochs": 1, "gradient_checkpointing": asked}
        recipe = make_recipe(model={"freeze_tower": False}, train=knobs)
        run(tmp_path / name, write_pairs("heter"), recipe)
    assert_equal_runs(tmp_path / "kept", tmp_path / "again", tolerance=1e-5)


def test_adapters_touch_the_language_side_alone(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe, start: Path
) -> None:
    recipe = make_recipe(
        model={"tuning": "lora", "lora_r": 4, "lora_alpha": 8}, train={"epochs": 1}
    )
    run(tmp_path / "run", write_pairs("heter"), recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert all(".language_model.layers." in name and ".lora_" in name for name in saved)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("_proj.weight") and "layers" in name for name in changed)


def test_bfloat16_keeps_learning_weights_in_full(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe, start: Path
) -> None:
    recipe = make_recipe(model={"dtype": "bfloat16"}, train={"epochs": 1, "learning_rate": 1e-5})
    run(tmp_path / "run", write_pairs("origin"), recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    norm = next(
        weight for name, weight in saved.items() if name.endswith("language_model.norm.weight")
    )
    assert not torch.equal(norm, torch.ones_like(norm))
    assert (norm - 1).abs().max() < 1e-4


def test_a_loss_that_is_not_a_number_names_the_study_and_keeps_the_checkpoint(
    tmp_path: Path,
    prepared: Path,
    start: Path,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(prepared, folder)
    recipe, pairs = make_recipe(), write_pairs("origin")
    victim = studies_of(read_rows(folder / "studies.jsonl", StudyRow), "train", 0.2)[5]

    def spoil(step: int, total: int) -> None:
        if step == 3:
            for path in (folder / "features").glob(f"*/{victim.scan_id}_*.safetensors"):
                save_file({"features": load_file(path)["features"] * torch.nan}, path)

    with pytest.raises(CtscribeError, match=f"must be finite.*{victim.volume_name}") as error:
        train(tmp_path / "run", folder, pairs, recipe, start, progress=spoil)
    assert error.value.code == "E_NAN"
    assert (tmp_path / "run" / "checkpoint-3" / "complete.json").exists()
    assert (tmp_path / "run" / "best").is_dir()


def test_too_few_pairs_are_refused(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(train={"pairs_per_device": 30})
    with pytest.raises(CtscribeError, match="takes 30 pairs, but there are 24"):
        run(tmp_path / "run", write_pairs("origin"), recipe)


def test_pairs_of_another_strategy_are_refused(
    tmp_path: Path,
    prepared: Path,
    start: Path,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
) -> None:
    with pytest.raises(CtscribeError, match=r"pairs\.strategy heter, but it holds origin"):
        train(tmp_path / "run", prepared, write_pairs("origin"), make_recipe("heter"), start)


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_full_device_is_told_with_its_studies_and_keeps_the_checkpoint(
    tmp_path: Path,
    run: Train,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    full: Exception,
) -> None:
    pairs, recipe = write_pairs("origin"), make_recipe(train={"checkpoints_per_epoch": 3})
    calls: list[str] = []
    score = ReportScorer.forward

    def fill(self: ReportScorer, batch: Batch) -> AnswerLosses:
        calls.append("")
        if self.training and len(calls) > 10:
            raise full
        return score(self, batch)

    monkeypatch.setattr(ReportScorer, "forward", fill)
    with pytest.raises(CtscribeError, match=r"memory, but train_\d+_a_1\.nii\.gz did not") as error:
        run(tmp_path / "run", pairs, recipe)
    assert error.value.code == "E_MEMORY"
    assert newest_complete(tmp_path / "run") is not None


def test_other_errors_are_not_taken_for_a_full_device(
    tmp_path: Path,
    run: Train,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: ReportScorer, batch: Batch) -> AnswerLosses:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(ReportScorer, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path / "run", write_pairs("origin"), make_recipe())


def test_an_over_long_report_is_named_and_the_checkpoint_kept(
    tmp_path: Path,
    prepared: Path,
    start: Path,
    write_pairs: WritePairs,
    make_recipe: MakeRecipe,
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(prepared, folder)
    studies = read_rows(folder / "studies.jsonl", StudyRow)
    last = EpochsInOrder(range(12), 1, seed=0)[11]
    victim = studies_of(studies, "train", 0.2)[last]
    long = victim.model_copy(update={"findings": "The lungs are clear. " * 2000})
    write_rows(folder / "studies.jsonl", [long if s == victim else s for s in studies])
    recipe = make_recipe("origin", train={"checkpoints_per_epoch": 3})
    with pytest.raises(
        CtscribeError, match=f"4096 tokens, but {victim.volume_name} needs"
    ) as error:
        train(tmp_path / "run", folder, write_pairs("origin"), recipe, start)
    assert error.value.code == "E_TOO_LONG"
    found = newest_complete(tmp_path / "run")
    assert found is not None
    assert found[1].step == 2


def test_a_negative_that_can_change_nothing_is_refused(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(objective={"reach": "vision"})
    with pytest.raises(CtscribeError, match="let one of them learn") as error:
        run(tmp_path / "run", write_pairs("heter"), recipe)
    assert error.value.code == "E_REACH"
    for part in ("freeze_tower", "freeze_merger"):
        tower = make_recipe(objective={"reach": "vision"}, model={part: False})
        require_reach(tower)


def test_missing_inputs_are_named(
    tmp_path: Path, run: Train, write_pairs: WritePairs, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(CtscribeError, match=r"pairs\.jsonl must exist"):
        run(tmp_path / "run", tmp_path / "pairs.jsonl", make_recipe())
    recipe = make_recipe(pairs={"validation_fraction": 0.001})
    with pytest.raises(CtscribeError, match="validation needs two patients or more"):
        run(tmp_path / "run", write_pairs("origin"), recipe)
