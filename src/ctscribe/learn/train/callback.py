"""The Trainer callback: logs, validates, saves the best weights, marks checkpoints complete."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import final

from accelerate.utils import gather_object
from pydantic import ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    Sizes,
    changed_file,
    measure_files,
    read_json,
    write_json,
    writing,
)
from ctscribe.base.recipe import ObjectiveConfig
from ctscribe.base.rows import Row
from ctscribe.learn.train.epochs import HardPairs
from ctscribe.learn.train.run_log import MetricsRow, RunLog
from ctscribe.learn.train.trainer import PairTrainer, means, not_a_number
from ctscribe.learn.train.validation import Validation

_MARKER = "complete.json"
_PREFIX = "checkpoint-"


@final
class CheckpointNote(Row):
    """``complete.json``: marks a complete checkpoint, and names the best one so far."""

    step: int
    """Updates done."""
    validation_ce: float
    best_step: int
    best_validation_ce: float
    files: Sizes
    """Bytes and CRC-32 of every other file, by its path in the folder."""


def seal(run_dir: Path, step: int, validation_ce: float, best: tuple[int, float]) -> CheckpointNote:
    """Marks ``checkpoint-<step>`` as complete and removes all other checkpoints.

    ``best`` is (step, validation cross entropy) of the best checkpoint so far.
    """
    folder = run_dir / f"{_PREFIX}{step}"
    # The Trainer pickles its arguments, with paths in them, but they are never read.
    (folder / "training_args.bin").unlink(missing_ok=True)
    note = CheckpointNote(
        step=step,
        validation_ce=validation_ce,
        best_step=best[0],
        best_validation_ce=best[1],
        files=measure_files(folder, _MARKER),
    )
    write_json(folder / _MARKER, note.model_dump(mode="json"))
    for other in _folders(run_dir):
        if other != folder:
            shutil.rmtree(other)
    return note


def newest_complete(run_dir: Path) -> tuple[Path, CheckpointNote] | None:
    """The latest checkpoint whose files are all intact; None where there was never a complete one.

    A damaged one is passed over for an earlier one, from which training gives the same weights.

    Raises:
        CtscribeError: ``E_CHECKPOINT`` when all complete ones are damaged: training must not start
            over unasked.
    """
    wrong: CtscribeError | None = None
    for folder in sorted(_folders(run_dir), key=_step, reverse=True):
        if not (folder / _MARKER).exists():
            continue  # interrupted while it was written
        try:
            return folder, _whole(folder)
        except CtscribeError as error:
            wrong = wrong or error
    if wrong:
        raise wrong
    return None


def _whole(folder: Path) -> CheckpointNote:
    try:
        note = CheckpointNote.model_validate(read_json(folder / _MARKER))
    except (CtscribeError, ValidationError) as error:
        raise damaged(folder, f"{_MARKER} is not what this version writes") from error
    if note.step != _step(folder):
        raise damaged(folder, f"it is that of update {note.step}")
    if name := changed_file(folder, note.files):
        raise damaged(folder, f"{name} is not what was written")
    return note


def damaged(folder: Path, found: str) -> CtscribeError:
    """The error for a checkpoint that cannot be resumed from."""
    return CtscribeError(
        "E_CHECKPOINT", f"the checkpoint {folder} must be as it was written, but {found}"
    )


def _folders(run_dir: Path) -> list[Path]:
    return [
        path
        for path in run_dir.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdigit()
    ]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


_FILE = "beta.json"
_MOMENTUM = 0.9
"""Weight of the past in the gap's running mean."""
_RATE = 0.05
"""Largest relative change of β per update."""
_RANGE = 10.0
"""β stays within this factor of its start."""


@final
class Beta:
    """The schedule of β, the same on all processes, resumable from a checkpoint.

    ``decay``: β falls linearly to 0. ``steered``: β is raised while the gap's running mean is below
    its target and lowered while it is above. Each update multiplies β by 1 + 0.05 · (relative error
    of the running mean, clamped to ±1). All processes see the same gaps, so they have the same β.

    Source: integral control of a Lagrange multiplier, as for the KL weight in Ziegler et al.,
    arXiv:1909.08593, section 2.2; it makes the paper's "dynamic weight" one.
    """

    def __init__(self, objective: ObjectiveConfig, checkpoint: Path | None) -> None:
        self._objective = objective
        self.value = objective.beta
        """Before any decay."""
        self._mean_gap: float | None = None
        if checkpoint is not None:
            saved = read_json(checkpoint / _FILE)
            self.value, self._mean_gap = saved["value"], saved["mean_gap"]

    def at(self, step: int, num_steps: int) -> float:
        """β of the update that comes after ``step`` of ``num_steps``."""
        if self._objective.beta_schedule != "decay":
            return self.value
        return self.value * (1 - step / max(1, num_steps - 1))

    def learn(self, gap: float | None) -> None:
        """Adjusts a steered β after an update.

        ``gap`` is the mean of CE⁻ − CE⁺ in nats, over the tokens in scope of all processes; None,
        where no gap was measured, keeps β.
        """
        if self._objective.beta_schedule != "steered" or gap is None:
            return
        past, target, start = self._mean_gap, self._objective.target_gap, self._objective.beta
        mean = gap if past is None else _MOMENTUM * past + (1 - _MOMENTUM) * gap
        error = min(1.0, max(-1.0, (target - mean) / target))
        value = self.value * (1 + _RATE * error)
        self.value, self._mean_gap = min(start * _RANGE, max(start / _RANGE, value)), mean

    def save(self, checkpoint: Path) -> None:
        """Writes its state into a checkpoint's folder."""
        write_json(checkpoint / _FILE, {"value": self.value, "mean_gap": self._mean_gap})


@final
@dataclass
class RunCallback(TrainerCallback):  # type: ignore[misc]  # untyped in the library
    """Logs, validates, saves the best weights and marks checkpoints; the main process writes.

    Attributes:
        trainer: The run's trainer.
        epochs: Number of epochs in the data set.
        checkpoint_steps: Updates after which the model is validated and a checkpoint is saved.
        validate: Validates the current model; called by all processes.
        save_best: Writes the current model to ``run_dir/best``; called by all processes.
        best: (step, validation cross entropy) of the best checkpoint so far.
        beta: Schedule of β.
        hard: Takes the gaps of every update, where hard negatives are drawn from them.
        log: None on all processes but the main one.
        logged: Called with each row of the log.
        progress: Called with (updates done, all updates), after ``logged``.
    """

    trainer: PairTrainer
    epochs: int
    checkpoint_steps: Collection[int]
    validate: Callable[[], Validation]
    save_best: Callable[[], None]
    best: tuple[int, float]
    beta: Beta
    hard: HardPairs | None
    log: RunLog[MetricsRow] | None
    logged: Callable[[MetricsRow], None]
    progress: ProgressCallback
    _validation: Validation | None = None

    @property
    def run_dir(self) -> Path:
        """Where the run's files go."""
        return Path(self.trainer.args.output_dir)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Sets β of this update."""
        self.trainer.beta = self.beta.at(state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Validates where a checkpoint is due, and raises where the loss is not finite."""
        self._validation = None
        if state.global_step in self.checkpoint_steps:
            self._validation = self.validate()
            if not math.isfinite(self._validation.own_ce):
                raise not_a_number(["the validation split"], state.global_step)
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: object,
    ) -> None:
        """Turns an update's metrics into a row of the log, and adjusts β."""
        if "grad_norm" not in logs:
            return
        if not math.isfinite(logs["grad_norm"]):
            raise not_a_number(self.trainer.studies, state.global_step)
        sums = self.trainer.accelerator.reduce(self.trainer.tally.take(), reduction="sum")
        measured = means(sums)
        self.beta.learn(measured["scope_gap"])
        if self.hard is not None and self.trainer.gaps is not None:
            self.hard.learn(gather_object(self.trainer.gaps))
            self.trainer.gaps = []
        if self.log is None:
            return
        validation = self._validation
        row = MetricsRow(
            step=state.global_step,
            epoch=self.epochs * state.global_step / state.max_steps,
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            beta=self.trainer.beta,
            **measured,
            validation_ce=validation and validation.own_ce,
            validation_other_ce=validation and validation.other_ce,
            validation_gap=validation and validation.gap,
        )
        self.log.add(row)
        self.logged(row)
        self.progress(state.global_step, state.max_steps)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Saves the weights if they are the best, then marks the checkpoint complete."""
        # every process writes its random state into the folder, and the marker must come last
        self.trainer.accelerator.wait_for_everyone()
        if self._validation is None:
            return
        step, own_ce = state.global_step, self._validation.own_ce
        is_best = own_ce < self.best[1]
        self.best = (step, own_ce) if is_best else self.best
        if is_best:
            self.save_best()
        if self.log is None:
            return
        self.log.flush()
        self.beta.save(self.run_dir / f"checkpoint-{step}")
        if self.hard is not None:
            self.hard.save()
        with writing(self.run_dir):
            seal(self.run_dir, step, own_ce, self.best)
