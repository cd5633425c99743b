"""The reinforcement stage: a trained run in, a run improved on its own samples out; resumable.

`policy` has what an update does.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    first_difference,
    sha256_of_json,
    write_json,
)
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.base.runs import (
    open_run,
    read_result,
    recipe_of,
    require_same_run,
    weights_sha256,
)
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.tensor_files import read_tensors, write_tensors
from ctscribe.learn.pairs.dataset import PairDataset, VisualSource
from ctscribe.learn.reward import draw_others, stated_labels
from ctscribe.learn.train.epochs import EpochsInOrder
from ctscribe.learn.train.policy import Policy, Scan
from ctscribe.learn.train.run_log import ReinforceRow, RunLog, draw_reward_curve
from ctscribe.learn.train.stage import is_out_of_memory, make_scorer, visual_source
from ctscribe.text.labeler import known_labels
from ctscribe.text.sections import split_report

_MAY_DIFFER = ("reinforce", "train", "generate")
"""Sections of the recipe that may differ from the trained run's."""


@final
@dataclass(frozen=True)
class ReinforceResult:
    """The outcome of a run: ``result.json``, the last file written."""

    best_validation_f1: float
    """Micro F1 of the findings in the reports of the validation scans."""
    best_step: int
    """0 where no update was better than the start."""
    num_steps: int


class _Best(NamedTuple):
    """The best validation so far."""

    step: int
    f1: float


def reinforce(
    run_dir: Path,
    start_run: Path,
    prepared: Prepared,
    recipe: Recipe,
    *,
    cues: Mapping[str, tuple[str, ...]] | None = None,
    progress: ProgressCallback = lambda done, total: None,
    told: Callable[[str], None] = lambda line: None,
) -> ReinforceResult:
    """Trains a run's best weights further by policy gradient, or resumes an interrupted call.

    ``run_dir`` is new or was started with the same request; its ``best`` are the weights with the
    highest F1 on validation, the starting weights included. ``recipe`` may differ from the trained
    run's in the sections reinforce, train and generate. ``cues`` are the findings that each prompt
    states, by volume name, for a run trained with cues. ``told`` is called with the memory
    estimate, ``progress`` with (updates done, all updates).

    Raises:
        CtscribeError: ``E_PROCESSES``, ``E_BUSY``, ``E_MISSING``, ``E_RUN``, ``E_RECIPE``,
            ``E_PREPARED``, ``E_RUN_EXISTS``, ``E_EMPTY_SPLIT``, ``E_WEIGHTS``, ``E_NO_NEGATIVE``,
            ``E_TOO_LONG``, ``E_NAN``, ``E_MEMORY``, ``E_CUES`` where cues and recipe do not go
            together.
    """
    _require_told(start_run, recipe, cues)
    _require_one_process()
    _require_same(start_run, recipe)
    prepared.require(recipe)
    training, validation = prepared.scans("train"), prepared.scans("validation")
    qwen, tokenizer = load_model(start_run / "best", recipe.model.dtype)
    request = _request(recipe, start_run, prepared.sha256([*training, *validation]), cues)
    with one_writer(run_dir):
        require_same_run(run_dir, "reinforce", request)
        if (run_dir / "result.json").exists():
            return read_result(run_dir / "result.json", ReinforceResult)
        qwen.to("cuda" if torch.cuda.is_available() else "cpu")
        shown = visual_source(qwen, prepared, _rows([*training, *validation]), recipe)
        visual = _with_cues(shown, cues)
        longest = qwen.config.text_config.max_position_embeddings
        pairs = PairDataset(prepared.by_name, _rows(training), tokenizer, visual, longest)
        pairs.require_reports()
        course = Course(training, pairs, recipe)
        tokens = recipe.train.pairs_per_device * pairs.longest(recipe.generate.max_new_tokens)
        policy = Policy(make_scorer(qwen, recipe, tokens, told), tokenizer, recipe)
        open_run(run_dir, "reinforce", request)
        judged = partial(validate, policy, validation, visual)
        save = partial(save_model, run_dir / "best", qwen, tokenizer)
        return go_on(run_dir, policy, course, judged, save, progress)


def _request(
    recipe: Recipe, start_run: Path, studies: str, cues: Mapping[str, tuple[str, ...]] | None
) -> dict[str, Any]:
    """What a run depends on, by which its folder is recognised; ``studies`` is their hash."""
    request = {
        "recipe": recipe.as_asked(),
        "start_sha256": weights_sha256(start_run / "best"),
        "studies_sha256": studies,
    }
    told = {} if cues is None else {"cues_sha256": sha256_of_json(sorted(cues.items()))}
    return request | told


def _with_cues(visual: VisualSource, cues: Mapping[str, tuple[str, ...]] | None) -> VisualSource:
    if cues is None:
        return visual
    return lambda study, seed: replace(visual(study, seed), cue=cues[study.volume_name])


def go_on(
    run_dir: Path,
    policy: Policy,
    course: "Course",
    measure: Callable[[], dict[str, float]],
    save_best: Callable[[], None],
    progress: ProgressCallback,
) -> ReinforceResult:
    """Does the remaining updates of a run, with validations, log and checkpoints."""
    knobs, checkpoint = policy.recipe.reinforce, run_dir / "checkpoint.safetensors"
    done, best = _restore(policy, checkpoint)
    if done >= 0:
        progress(done, knobs.updates)
    log = RunLog(run_dir, done, ReinforceRow)
    for step in range(done + 1, knobs.updates + 1):
        row = ReinforceRow(step=0) if step == 0 else _update(policy, course.scans(step), step)
        is_due = step % knobs.validate_every == 0 or step == knobs.updates
        if is_due:
            row = row.model_copy(update=measure())
            assert row.validation_f1 is not None
            if row.validation_f1 > best.f1:
                best = _Best(step, row.validation_f1)
                save_best()
        log.add(row)
        if is_due:
            log.flush()
            _save(policy, checkpoint, step, best)
        progress(step, knobs.updates)
    draw_reward_curve(log.rows, run_dir / "reward_curve.png")
    result = ReinforceResult(best.f1, best.step, knobs.updates)
    write_json(run_dir / "result.json", asdict(result))
    return result


@final
class Course:
    """The scans of each update, each with the labels of another patient; fixed by the seed."""

    def __init__(self, studies: Sequence[StudyRow], pairs: PairDataset, recipe: Recipe) -> None:
        knobs = recipe.reinforce
        self._studies, self._pairs = studies, pairs
        self._per_update = knobs.scans_per_update
        passes = -(-knobs.updates * knobs.scans_per_update // len(studies))
        # drawn anew in each pass: the model would unlearn the findings of one fixed patient
        self._others = [draw_others(studies, knobs.seed + number) for number in range(passes)]
        self._order = EpochsInOrder(range(len(studies)), passes, knobs.seed)

    def scans(self, step: int) -> list[Scan]:
        """The scans of an update, counted from 1."""
        found = []
        for place in range((step - 1) * self._per_update, step * self._per_update):
            number = self._order[place]
            other = self._others[place // len(self._studies)][number]
            found.append(Scan(self._pairs[number], known_labels(self._studies[number]), other))
        return found


def validate(policy: Policy, studies: Sequence[StudyRow], visual: VisualSource) -> dict[str, float]:
    """Scores the greedy report of each scan; the validation fields of a `ReinforceRow`."""
    answers = policy.write([visual(study, None) for study in studies])
    stated = np.array([stated_labels(answer.text) for answer in answers])
    true = np.array([known_labels(study) for study in studies])
    hits, num_stated, num_true = (stated & true).sum(), stated.sum(), true.sum()
    texts = [" ".join(part for part in split_report(answer.text) if part) for answer in answers]
    references = [f"{study.findings.strip()} {study.impression.strip()}" for study in studies]
    return {
        "validation_f1": float(2 * hits / max(1, num_stated + num_true)),
        "validation_coverage": float(hits / max(1, num_true)),
        "validation_precision": float(hits / max(1, num_stated)),
        "validation_bleu_4": _bleu_4(texts, references),
    }


def _bleu_4(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4 on whitespace tokens, 0 to 1, as in evaluation."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return float(metric.corpus_score(list(texts), [list(references)]).score) / 100


def _update(policy: Policy, scans: Sequence[Scan], step: int) -> ReinforceRow:
    try:
        return policy.update(scans, step)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        studies = ", ".join(scan.pair.positive.study for scan in scans)
        raise CtscribeError(
            "E_MEMORY",
            f"an update must fit into the device's memory, but {studies} did not",
        ) from error


def _save(policy: Policy, path: Path, step: int, best: _Best) -> None:
    """Writes all that later updates depend on, atomically, as one file."""
    note = {"progress": json.dumps({"step": step, "best": best})}
    write_tensors(path, policy.state(), note)


def _restore(policy: Policy, path: Path) -> tuple[int, _Best]:
    """Updates done and the best validation; −1 updates before the start has been validated."""
    if not path.exists():
        return -1, _Best(0, -1.0)
    tensors, facts = read_tensors(path, "E_CHECKPOINT")
    policy.restore(tensors)
    note = json.loads(facts["progress"])
    return note["step"], _Best(*note["best"])


def _rows(studies: Sequence[StudyRow]) -> list[PairRow]:
    names = [study.volume_name for study in studies]
    return [PairRow(study=name, role="positive", volume=name) for name in names]


def _require_one_process() -> None:
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes > 1:
        raise CtscribeError(
            "E_PROCESSES", f"reinforcement runs in one process, but there are {num_processes}"
        )


def _require_told(
    start_run: Path, recipe: Recipe, cues: Mapping[str, tuple[str, ...]] | None
) -> None:
    if recipe.model.cues != (cues is not None):
        raise CtscribeError(
            "E_CUES", f"{start_run} must be told findings if it learned so, and only then"
        )


def _require_same(start_run: Path, recipe: Recipe) -> None:
    """Refuses a recipe that differs from the trained run's outside `_MAY_DIFFER`.

    Raises:
        CtscribeError: ``E_RECIPE`` naming the first knob that differs.
    """
    before, asked = (
        each.model_dump(mode="json", exclude=set(_MAY_DIFFER))
        for each in (recipe_of(start_run), recipe)
    )
    if difference := first_difference(before, asked):
        raise CtscribeError(
            "E_RECIPE",
            f"a run may go on with other knobs in {', '.join(_MAY_DIFFER)} alone, but the recipe "
            f"differs in {difference}",
        )
