"""The stage as a user runs it: what it learns, leaves, continues and refuses."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, StudyRow, read_rows
from ctscribe.base.types import Labels
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.pairs.dataset import PairDataset, Visual
from ctscribe.learn.reward import Reward
from ctscribe.learn.train import policy as policy_module
from ctscribe.learn.train import reinforce as stage
from ctscribe.learn.train.policy import Policy
from ctscribe.learn.train.reinforce import Course, ReinforceResult, reinforce, validate
from ctscribe.learn.train.run_log import ReinforceRow
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.learn.train.stage import visual_source
from ctscribe.measure.clinical import clinical_scores, clinical_statistics
from ctscribe.measure.language import bleu_4
from ctscribe.measure.scans import scored_text
from ctscribe.text.labeler import known_labels, label_report
from ctscribe.write.writer import ReportWriter
from tests.learn.train.runs import make_recipe
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import reported_studies, study_row, write_prepared

KNOBS = {"updates": 4, "scans_per_update": 2, "samples_per_scan": 3, "validate_every": 2}
Reinforce = Callable[..., ReinforceResult]


def recipe_with(model: dict[str, Any] | None = None, **knobs: object) -> Recipe:
    return make_recipe(
        model=model or {},
        generate={"max_new_tokens": 6, "batch_size": 64},
        reinforce={**KNOBS, "learning_rate": 3e-3, **knobs},
        objective={"label_weight": 0.5 if (model or {}).get("slice_attention") else 0.0},
    )


def rows_of(run: Path) -> list[ReinforceRow]:
    return read_rows(run / "metrics.jsonl", ReinforceRow)


def best_of(run: Path, file: str = "model") -> dict[str, Tensor]:
    return load_file(run / "best" / f"{file}.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report earns its share of the letter e: a random model writes it, and can write more."""

    def share_of_e(text: str, **_: object) -> Reward:
        share = text.count("e") / max(1, len(text))
        return Reward(share, share, 0.0)

    def own(studies: Sequence[StudyRow], seed: int) -> list[Labels]:
        return [known_labels(study) for study in studies]

    monkeypatch.setattr(policy_module, "reward_of", share_of_e)
    monkeypatch.setattr(stage, "draw_others", own)  # which nobody looks at


@pytest.fixture
def go_on(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Reinforce:
    """Starts from a random model, the same for all runs of a test."""

    def go_on_(
        out: Path,
        recipe: Recipe,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReinforceResult:
        start = tmp_path / "start"
        if not start.exists():
            model = tiny_model(tokenizer)
            if recipe.model.slice_attention:
                attach_finding_queries(model)
            write_run(start, recipe, model, tokenizer)
        return reinforce(out, start, prepared, recipe, progress=progress)

    return go_on_


def rig_validation(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    told = iter(scores)
    monkeypatch.setattr(stage, "validate", lambda *_: {"validation_f1": next(told)})


@pytest.mark.usefixtures("easy")
def test_a_rigged_reward_is_learned_and_the_run_can_write(
    tmp_path: Path, go_on: Reinforce, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    rig_validation(monkeypatch, [0.1, 0.2, 0.3])
    recipe = recipe_with(
        updates=10, samples_per_scan=8, validate_every=5, reference_weight=0, learning_rate=1e-2
    )
    result = go_on(tmp_path / "run", recipe, progress=lambda *done: told.append(done))
    assert result == ReinforceResult(0.3, 10, 10)
    assert told == [(step, 10) for step in range(11)]
    first, *rows = rows_of(tmp_path / "run")
    assert first == ReinforceRow(step=0, validation_f1=0.1)
    assert [row.step for row in rows] == [*range(1, 11)]
    assert {row.step: row.validation_f1 for row in rows if row.validation_f1} == {5: 0.2, 10: 0.3}
    rewards = np.array([row.reward for row in rows], dtype=float)
    assert rewards[-3:].mean() > 3 * rewards[:3].mean()
    assert rows[0].num_tokens == pytest.approx(6, abs=0.2)
    assert rows[0].share_unfinished == pytest.approx(1, abs=0.2)
    entropies = [row.sampled_ce for row in (rows[0], rows[-1])]
    assert entropies[0] == pytest.approx(np.log(400), rel=0.1)
    assert entropies[1] is not None
    assert entropies[1] < 4
    assert (tmp_path / "run" / "reward_curve.png").stat().st_size > 5000
    writer, study = ReportWriter(tmp_path / "run"), prepared.studies[0]
    visual = writer.features(prepared, [study]).visual(study)
    assert writer.answers([visual])[0].text.count("e") >= 3


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize(
    ("scores", "best_step"), [((0.5, 0.5, 0.4), 0), ((0.5, 0.7, 0.6), 1), ((0.5, 0.7, 0.8), 2)]
)
def test_the_best_on_validation_is_kept_the_start_among_them(
    tmp_path: Path,
    go_on: Reinforce,
    monkeypatch: pytest.MonkeyPatch,
    scores: tuple[float, ...],
    best_step: int,
) -> None:
    rig_validation(monkeypatch, scores)
    result = go_on(tmp_path / "run", recipe_with(updates=2, validate_every=1))
    assert result == ReinforceResult(max(scores), best_step, 2)
    kept, start = best_of(tmp_path / "run"), best_of(tmp_path / "start")
    last = {
        name.removeprefix("weight.qwen.").replace("language_model.", ""): tensor
        for name, tensor in load_file(tmp_path / "run" / "checkpoint.safetensors").items()
        if name.startswith("weight.qwen.model.language_model.layers")
    }
    assert last
    assert same(start, kept) == (best_step == 0)
    assert same(last, kept) == (best_step == 2)


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize("cut_at", [1, 2])
def test_an_interrupted_run_continues_exactly(
    tmp_path: Path, go_on: Reinforce, cut_at: int
) -> None:
    recipe = recipe_with(updates=3)
    result = go_on(tmp_path / "whole", recipe)

    def interrupt(step: int, total: int) -> None:
        if step == cut_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path / "cut", recipe, progress=interrupt)
    (tmp_path / "cut" / ".checkpoint.safetensors.x.part").write_bytes(b"half")
    told: list[int] = []
    assert go_on(tmp_path / "cut", recipe, lambda step, _: told.append(step)) == result
    assert told == [*range(0 if cut_at < 2 else 2, 4)]  # first where it goes on
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    for name in ("best/model.safetensors", "checkpoint.safetensors"):
        whole, cut = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert same(whole, cut)
        assert whole.keys() == cut.keys()


def test_a_run_cut_in_its_first_validation_begins_anew(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, real = recipe_with(updates=1), stage._save
    monkeypatch.setattr(stage, "_save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go_on(tmp_path / "run", recipe)
    monkeypatch.setattr(stage, "_save", real)
    go_on(tmp_path / "run", recipe)
    assert [row.step for row in rows_of(tmp_path / "run")] == [0, 1]


@pytest.mark.usefixtures("easy")
def test_the_seed_decides_and_another_request_is_refused(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with(updates=1)
    result = go_on(tmp_path / "a", recipe)
    go_on(tmp_path / "b", recipe_with(updates=1, seed=1))
    rewards = [rows_of(tmp_path / run)[1].reward for run in "ab"]
    assert rewards[0] != rewards[1]
    with refusal("E_RUN_EXISTS", r"differs in recipe\.reinforce\.seed"):
        go_on(tmp_path / "b", recipe)
    monkeypatch.setattr(stage, "make_scorer", None)
    assert go_on(tmp_path / "a", recipe) == result
    write_run(
        tmp_path / "start",
        recipe,
        tiny_model(tokenizer := load_model(tmp_path / "start" / "best")[1], seed=3),
        tokenizer,
    )
    with refusal("E_RUN_EXISTS", "differs in the starting weights"):
        go_on(tmp_path / "a", recipe)


def test_the_reference_holds_where_nothing_is_to_be_earned(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_module, "reward_of", lambda *_, **__: Reward(0.25, 0.5, 0.25))
    monkeypatch.setattr(policy_module, "policy_loss", None)  # no pass through what teaches nothing
    go_on(tmp_path / "run", recipe_with(updates=5, samples_per_scan=2, reference_weight=1.0))
    rows = rows_of(tmp_path / "run")[1:]
    assert all(row.share_telling == 0 for row in rows)
    losses = [row.reference_ce for row in rows]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < losses[0] - 0.5
    go_on(tmp_path / "still", recipe_with(updates=1, reference_weight=0.0))
    assert same(best_of(tmp_path / "start"), best_of(tmp_path / "still"))
    assert {row.grad_norm for row in rows_of(tmp_path / "still")[1:]} == {0}


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize(
    "model",
    [
        {"tuning": "lora", "lora_r": 4, "dtype": "bfloat16"},
        {"tuning": "full", "dtype": "bfloat16"},
        {"freeze_tower": False, "freeze_merger": False},
        {"slice_attention": True},
    ],
    ids=["adapters", "narrow", "tower", "queries"],
)
def test_every_way_of_tuning_learns_its_own_weights_alone(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]
) -> None:
    rig_validation(monkeypatch, [0.1, 0.2])
    narrow = [note_autocast(monkeypatch, *place) for place in AUTOCAST]
    assert go_on(tmp_path / "run", recipe_with(model, updates=1)).best_step == 1
    start, best = best_of(tmp_path / "start"), best_of(tmp_path / "run")
    moved = {
        name for name, weight in best.items() if not torch.equal(weight, start[name].to(weight))
    }
    language = any("language_model" in name or name.startswith("model.layers") for name in moved)
    assert language == (model.get("tuning") != "lora")
    assert any("visual" in name for name in moved) == (model.get("freeze_tower") is False)
    if model.get("tuning") == "lora":
        adapters = load_file(tmp_path / "run" / "best" / "adapters.safetensors")
        assert all(tensor.dtype == torch.float32 for tensor in adapters.values())
        assert all(tensor.any() for tensor in adapters.values())
    if model.get("slice_attention"):
        queries = [best_of(tmp_path / run, "slice_attention") for run in ("start", "run")]
        assert not same(*queries)
    assert [{*each} for each in narrow] == [{model.get("dtype") == "bfloat16"}] * 2
    load_model(tmp_path / "run" / "best")


@pytest.mark.usefixtures("easy")
def test_a_trained_runs_adapters_go_on_learning(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with({"tuning": "lora", "lora_r": 4, "lora_alpha": 8}, updates=1)
    rig_validation(monkeypatch, [0.1, 0.2])
    go_on(tmp_path / "first", recipe)
    (tmp_path / "start").rename(tmp_path / "below")
    (tmp_path / "first").rename(tmp_path / "start")
    for scores, moves in (([0.3, 0.2], False), ([0.1, 0.2], True)):
        rig_validation(monkeypatch, scores)
        go_on(tmp_path / f"moves-{moves}", recipe)
        assert same(best_of(tmp_path / f"moves-{moves}"), best_of(tmp_path / "below"))
        learned = [best_of(tmp_path / run, "adapters") for run in ("start", f"moves-{moves}")]
        assert same(*learned) != moves


AUTOCAST = ((policy_module, "write_reports"), (ReportScorer, "forward"))


def note_autocast(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> list[bool]:
    """Whether each call of a function works in bfloat16 where it can."""
    real, noted = getattr(place, name), list[bool]()

    def call(*given: object, **named: object) -> object:
        noted.append(torch.is_autocast_enabled("cpu"))
        return real(*given, **named)

    monkeypatch.setattr(place, name, call)
    return noted


def test_queries_go_on_learning_their_labels_alone(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_module, "reward_of", lambda *_, **__: Reward(0.25, 0.5, 0.25))
    rig_validation(monkeypatch, [0.1, 0.2])
    go_on(tmp_path / "run", recipe_with({"slice_attention": True}, updates=1, reference_weight=0))
    assert same(best_of(tmp_path / "start"), best_of(tmp_path / "run"))
    queries = [best_of(tmp_path / run, "slice_attention") for run in ("start", "run")]
    assert not same(*queries)


def parrot(monkeypatch: pytest.MonkeyPatch, texts: Sequence[str]) -> Policy:
    """Writes what it is told."""

    def write(self: Policy, visuals: Sequence[Visual]) -> list[Answer]:
        assert len(visuals) == len(texts)
        return [Answer(text, (), (), True) for text in texts]

    monkeypatch.setattr(Policy, "write", write)
    return Policy.__new__(Policy)


def nothing(study: StudyRow, seed: int | None) -> Visual:
    assert seed is None
    return Visual((1, 2, 2), (0.0,))


def test_validation_scores_as_evaluation_does(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = reported_studies(30)
    told = [*studies[9:], *[study_row("train_1_a_1.nii.gz")] * 9]
    texts = [f"Findings: {s.findings}\nImpression: {s.impression}" for s in told]
    found = validate(parrot(monkeypatch, texts), studies, nothing)
    rows = clinical_statistics(
        predictions=[label_report(text) for text in texts],
        references=[known_labels(study) for study in studies],
    )
    scores = clinical_scores(rows.sum(0, keepdims=True))
    for ours, theirs in (("f1", "f1"), ("coverage", "coverage"), ("precision", "precision")):
        assert found[f"validation_{ours}"] == pytest.approx(scores[theirs][0])
    written, true = (
        [scored_text(s.findings, s.impression) for s in rows] for rows in (told, studies)
    )
    expected = bleu_4(predictions=written, references=true)
    assert found["validation_bleu_4"] == pytest.approx(expected, abs=1e-9)
    assert 0.05 < found["validation_coverage"] < found["validation_precision"] < 0.9


def test_silence_scores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = reported_studies(4)
    found = validate(parrot(monkeypatch, [""] * 4), studies, nothing)
    assert set(found.values()) == {0.0}


def course(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, **knobs: Any) -> Course:  # noqa: ANN401
    studies = prepared.scans("train")
    rows = [PairRow(study=s.volume_name, role="positive", volume=s.volume_name) for s in studies]
    shown = Visual((2, 4, 4), (0.0, 1.0), visual_tokens=torch.zeros(8, 4))
    pairs = PairDataset(prepared.by_name, rows, tokenizer, lambda *_: shown, 4096)
    return Course(studies, pairs, recipe_with(**{"updates": 9, "scans_per_update": 4, **knobs}))


def test_each_pass_meets_every_scan_once_beside_a_patient_who_differs(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> None:
    order, orders = course(prepared, tokenizer), []
    for first in (1, 4, 7):  # 12 scans, 4 an update
        met = [scan for step in range(first, first + 3) for scan in order.scans(step)]
        orders.append([scan.pair.positive.study for scan in met])
        assert len({*orders[-1]}) == 12
        for scan in met:
            study = prepared.by_name[scan.pair.positive.study]
            assert scan.own == known_labels(study) != scan.other
    assert all(one != other for one, other in pairwise(orders))
    again, other = (
        [scan.pair.positive.study for scan in course(prepared, tokenizer, **knobs).scans(1)]
        for knobs in ({"updates": 1}, {"updates": 1, "seed": 1})
    )
    assert again == orders[0][:4] != other


def test_several_processes_are_refused(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refusal("E_PROCESSES", "runs in one process, but there are 2"):
        go_on(tmp_path / "run", recipe_with())


@pytest.mark.usefixtures("easy")
def test_knobs_that_the_run_learned_with_stay(tmp_path: Path, go_on: Reinforce) -> None:
    usual = recipe_with(updates=1)
    go_on(tmp_path / "run", usual)
    with refusal("E_RECIPE", r"model\.positions \('depth' there, 'index' asked\)"):
        go_on(tmp_path / "other", recipe_with({"positions": "index"}, updates=1))
    free = recipe_with(updates=1, seed=4).model_copy(
        update={"train": usual.train.model_copy(update={"pairs_per_device": 3})}
    )
    assert go_on(tmp_path / "free", free).num_steps == 1


def test_what_is_missing_is_named(
    tmp_path: Path, prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> None:
    recipe = recipe_with()
    with refusal("E_MISSING", r"run\.json must exist"):
        reinforce(tmp_path / "run", tmp_path / "start", prepared, recipe)
    start = write_run(tmp_path / "start", recipe, tiny_model(tokenizer), tokenizer)
    taught = write_prepared(tmp_path / "prepared", prepared.split("train"), recipe)
    with refusal("E_EMPTY_SPLIT", "the validation split must have scans"):
        reinforce(tmp_path / "run", start, taught, recipe)
    elsewhere = write_prepared(tmp_path / "elsewhere", prepared.studies, Recipe())
    with refusal("E_PREPARED", "differ in"):
        reinforce(tmp_path / "run", start, elsewhere, recipe)
    (start / "best" / "model.safetensors").unlink()
    with refusal("E_WEIGHTS"):
        reinforce(tmp_path / "run", start, prepared, recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("easy")
def test_a_loss_that_is_not_a_number_names_the_studies_and_keeps_the_checkpoint(
    tmp_path: Path, go_on: Reinforce
) -> None:
    with refusal("E_NAN", r"after 1 updates they are not, on train_\d+_a_1\.nii\.gz, train_"):
        go_on(tmp_path / "run", recipe_with(learning_rate=1e30))
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.usefixtures("easy")
def test_a_gradient_that_is_not_a_number_moves_nothing(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = policy_module.policy_loss
    monkeypatch.setattr(policy_module, "policy_loss", lambda *given: loss(*given) * torch.inf)
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    with refusal("E_NAN", r"after 0 updates they are not, on train_\d+_a_1\.nii\.gz, train_"):
        go_on(tmp_path / "run", recipe_with())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "E_MEMORY"),
        (torch.OutOfMemoryError(), "E_MEMORY"),
        (RuntimeError("x"), None),
    ],
)
def test_a_full_device_is_told_with_its_studies(
    tmp_path: Path,
    go_on: Reinforce,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str | None,
) -> None:
    def fill(self: Policy, scans: object, step: int) -> ReinforceRow:
        raise error

    monkeypatch.setattr(Policy, "update", fill)
    if code is None:
        with pytest.raises(RuntimeError, match="x"):
            go_on(tmp_path / "run", recipe_with())
    else:
        with refusal(code, r"memory, but train_\d+_a_1\.nii\.gz, train_\d+_a_1\.nii\.gz did not"):
            go_on(tmp_path / "run", recipe_with())


def test_cues_reach_the_prompt_where_the_source_tells_them(
    tmp_path: Path, go_on: Reinforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[tuple[str, ...] | None] = []

    def cued(*given: Any) -> Any:  # noqa: ANN401
        source = visual_source(*given)

        def visual(study: StudyRow, seed: int | None = None) -> Visual:
            plain = source(study, seed)
            return Visual(
                plain.grid_thw, plain.position_mm, visual_tokens=plain.visual_tokens, cue=("x",)
            )

        return visual

    def spy(*given: Any) -> Any:  # noqa: ANN401
        sample = real_sample(*given)
        prompts.append(sample.visual.cue)
        return sample

    real_sample = policy_module.as_sample
    monkeypatch.setattr(stage, "visual_source", cued)
    monkeypatch.setattr(policy_module, "as_sample", spy)
    go_on(tmp_path / "run", recipe_with(updates=1))
    assert prompts == [("x",)] * 6


def test_a_told_run_is_told_as_when_it_writes(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    recipe = recipe_with({"cues": True}, updates=1, validate_every=1)
    start = write_run(tmp_path / "start", recipe, tiny_model(tokenizer), tokenizer)
    with refusal("E_CUES", "must be told findings if it learned so"):
        reinforce(tmp_path / "out", start, prepared, recipe)
    told = dict.fromkeys(prepared.by_name, ("Emphysema",))
    reinforce(tmp_path / "out", start, prepared, recipe, cues=told)
    with refusal("E_RUN_EXISTS", "the cues"):
        reinforce(tmp_path / "out", start, prepared, recipe, cues=dict.fromkeys(told, ()))
    untold = recipe_with(updates=1)
    other = write_run(tmp_path / "untold", untold, tiny_model(tokenizer), tokenizer)
    with refusal("E_CUES", "and only then"):
        reinforce(tmp_path / "other", other, prepared, untold, cues=told)
