"""The stage as a user runs it, in one process; where it must stop it keeps its checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import GapRow, PairRow, read_rows, write_rows
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.pairs.collate import Batch
from ctscribe.learn.train import stage
from ctscribe.learn.train.callback import newest_complete
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.learn.train.stage import TrainResult, train
from tests.learn.train.runs import Train, assert_equal_runs, make_recipe, metrics, weights
from tests.refusals import refusal
from tests.studies import write_prepared


def test_a_run_leaves_weights_log_and_curve(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path]
) -> None:
    told: list[tuple[int, int]] = []
    pairs, recipe = pairs_of["heter"], make_recipe()
    logged: list[MetricsRow] = []
    result = run(
        tmp_path / "run",
        pairs,
        recipe,
        progress=lambda *done: told.append(done),
        logged=logged.append,
    )
    assert told == [(step, 6) for step in range(7)]
    rows = metrics(tmp_path / "run")
    assert logged == rows
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
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, recipe = pairs_of["origin"], make_recipe(train={"epochs": 1})
    result = run(tmp_path / "run", pairs, recipe)
    monkeypatch.setattr(stage, "load_model", None)
    assert run(tmp_path / "run", pairs, recipe) == result
    with pytest.raises(CtscribeError, match=r"differs in recipe\.train\.epochs"):
        run(tmp_path / "run", pairs, make_recipe(train={"epochs": 2}))
    other = tmp_path / "origin" / "pairs.jsonl"
    write_rows(other, read_rows(pairs, PairRow)[1:])
    with pytest.raises(CtscribeError, match="differs in the pairs"):
        run(tmp_path / "run", other, recipe)


STEERED = {"name": "logistic", "scope": "disputed", "beta_schedule": "steered"}


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [
        ("heter", STEERED),
        ("heter", {"beta_schedule": "decay"}),
        ("gauss", {}),
        ("hard", {"name": "logistic"}),
    ],
)
def test_an_interrupted_run_continues_exactly(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], strategy: str, objective: dict[str, str]
) -> None:
    pairs, recipe = pairs_of[strategy], make_recipe(objective=objective)
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
    assert told == [3, 4, 5, 6]  # first where it goes on
    betas = {row.beta for row in metrics(tmp_path / "cut")}
    assert len(betas) == (6 if "beta_schedule" in objective else 1)
    gaps = [sorted((tmp_path / name / "gaps").glob("*")) for name in ("whole", "cut")]
    assert len(gaps[0]) == (2 if strategy == "hard" else 0)
    for whole, cut in zip(*gaps, strict=True):
        rows = [read_rows(path, GapRow) for path in (whole, cut)]
        assert [(r.study, r.volume) for r in rows[0]] == [(r.study, r.volume) for r in rows[1]]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", tolerance=1e-6)


def test_partners_learn_side_by_side_and_go_on_where_they_stopped(
    tmp_path: Path, run: Train, mutual_pairs: Path
) -> None:
    recipe = make_recipe(
        pairs={"mutual": True}, train={"pairs_per_device": 2, "gradient_accumulation_steps": 2}
    )
    told: list[str] = []
    run(tmp_path / "whole", mutual_pairs, recipe, told=told.append)
    assert told[0].startswith("Sharing: 10 of 12 pairs are learned beside their partner's")
    rows = metrics(tmp_path / "whole")
    assert rows[-1].gap is not None
    assert rows[-1].gap > 0.05
    assert all(row.positive_grad_norm is None and row.grad_norm > 0 for row in rows)

    def interrupt(step: int, total: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", mutual_pairs, recipe, progress=interrupt)
    run(tmp_path / "cut", mutual_pairs, recipe)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", tolerance=1e-6)


def test_partners_that_are_not_mutual_are_refused(
    tmp_path: Path, run: Train, mutual_pairs: Path
) -> None:
    lonely = tmp_path / "heter" / "pairs.jsonl"
    lonely.parent.mkdir()
    write_rows(lonely, read_rows(mutual_pairs, PairRow)[:4])
    recipe = make_recipe(pairs={"mutual": True}, train={"pairs_per_device": 2})
    with refusal("E_PAIRS", "of 2 pairs none are"):
        run(tmp_path / "run", lonely, recipe)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_capped_negative_costs_nothing_and_changes_nothing(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path]
) -> None:
    origin_pairs, heter_pairs = pairs_of["origin"], pairs_of["heter"]
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


def test_too_few_pairs_are_refused(tmp_path: Path, run: Train, pairs_of: dict[str, Path]) -> None:
    recipe = make_recipe(train={"pairs_per_device": 30})
    with pytest.raises(CtscribeError, match="takes 30 pairs, but there are 24"):
        run(tmp_path / "run", pairs_of["origin"], recipe)


def test_pairs_of_another_strategy_are_refused(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    with pytest.raises(CtscribeError, match=r"pairs\.strategy heter, but it holds origin"):
        train(tmp_path / "run", prepared, pairs_of["origin"], make_recipe("heter"), start)


def test_missing_inputs_are_named(
    tmp_path: Path, prepared: Prepared, run: Train, pairs_of: dict[str, Path]
) -> None:
    with pytest.raises(CtscribeError, match=r"pairs\.jsonl must exist"):
        run(tmp_path / "run", tmp_path / "pairs.jsonl", make_recipe())
    pairs, recipe = pairs_of["origin"], make_recipe()
    taught = write_prepared(tmp_path / "prepared", prepared.split("train"), recipe)
    with pytest.raises(CtscribeError, match="validation needs two patients or more"):
        train(tmp_path / "run", taught, pairs, recipe)


def test_a_loss_that_is_not_a_number_names_the_study_and_keeps_the_checkpoint(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(prepared.folder, folder)
    recipe, pairs = make_recipe(), pairs_of["origin"]
    victim = prepared.split("train")[5]

    def spoil(step: int, total: int) -> None:
        if step == 3:
            for path in (folder / "features").glob(f"*/{victim.scan_id}_*.safetensors"):
                save_file({"features": load_file(path)["features"] * torch.nan}, path)

    with pytest.raises(CtscribeError, match=f"must be finite.*{victim.volume_name}") as error:
        train(tmp_path / "run", Prepared(folder), pairs, recipe, start, progress=spoil)
    assert error.value.code == "E_NAN"
    assert (tmp_path / "run" / "checkpoint-3" / "complete.json").exists()
    assert (tmp_path / "run" / "best").is_dir()


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
    pairs_of: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    full: Exception,
) -> None:
    pairs, recipe = pairs_of["origin"], make_recipe(train={"checkpoints_per_epoch": 3})
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
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ReportScorer, batch: Batch) -> AnswerLosses:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(ReportScorer, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path / "run", pairs_of["origin"], make_recipe())


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("The lungs are clear. " * 2000, "E_TOO_LONG", "4096 tokens, but {} needs"),
        ("Clear.<|im_end|>", "E_REPORT", "report of {} must be plain text"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_report_that_cannot_be_taught_is_refused_before_the_run_begins(
    tmp_path: Path,
    prepared: Prepared,
    start: Path,
    pairs_of: dict[str, Path],
    text: str,
    code: str,
    told: str,
    split: Split,
) -> None:
    folder, run_dir = tmp_path / "prepared", tmp_path / "run"
    shutil.copytree(prepared.folder, folder)
    victim = prepared.split(split)[-1]
    bad = victim.model_copy(update={"findings": text})
    write_rows(folder / "studies.jsonl", [bad if s == victim else s for s in prepared.studies])
    recipe = make_recipe("origin", train={"epochs": 1})
    with refusal(code, told.format(victim.volume_name)):
        train(run_dir, Prepared(folder), pairs_of["origin"], recipe, start)
    train(run_dir, prepared, pairs_of["origin"], recipe, start)


def test_a_first_try_that_is_refused_leaves_the_folder_to_the_mended_one(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    run_dir, pairs = tmp_path / "run", pairs_of["origin"]
    few = write_prepared(tmp_path / "few", prepared.split("train"), make_recipe())
    many = make_recipe(train={"pairs_per_device": 30})
    coarse = make_recipe(volume={"spacing_mm": [2, 2, 2]})
    for studies, recipe, begun, code in (
        (prepared, coarse, start, "E_PREPARED"),
        (prepared, make_recipe("heter"), start, "E_PAIRS"),
        (few, make_recipe("origin"), start, "E_EMPTY_SPLIT"),
        (prepared, make_recipe("origin"), tmp_path / "none", "E_WEIGHTS"),
        (prepared, many, start, "E_TOO_FEW"),
    ):
        with refusal(code):
            train(run_dir, studies, pairs, recipe, begun)
        assert not run_dir.exists()
    train(run_dir, prepared, pairs, make_recipe("origin", train={"epochs": 1}), start)
