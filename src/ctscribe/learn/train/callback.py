"""What happens beside the updates: log, validate, keep the best, mark checkpoints complete."""

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
    """``complete.json``: that a checkpoint is whole, and the best one up to it."""

    step: int
    """Updates done."""
    validation_ce: float
    best_step: int
    best_validation_ce: float
    files: Sizes
    """Bytes and CRC-32 of every other file, by its path in the folder."""


def seal(run_dir: Path, step: int, validation_ce: float, best: tuple[int, float]) -> CheckpointNote:
    """Marks ``checkpoint-<step>``, which is completely written, and removes all others.

    ``best`` is (step, validation cross entropy) of the best checkpoint so far.
    """
    folder = run_dir / f"{_PREFIX}{step}"
    # The Trainer pickles its arguments, with paths in them; nothing ever reads them back.
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
    """The furthest checkpoint that is as it was written, every byte of it; None without any.

    One that is not is passed over for an earlier one, from which the same weights come again.

    Raises:
        CtscribeError: ``E_CHECKPOINT`` when there is no earlier one, but one was complete once:
            nobody shall begin anew unasked.
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
    """The error for a checkpoint from which nothing can go on."""
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
_MEMORY = 0.9
_RATE = 0.05
_RANGE = 10.0


@final
class Beta:
    """β of the next update, the same on all processes, continued after an interruption.

    Decaying, β follows from the number of the update alone. Steered, it is raised while the gap is
    below its target and lowered above it: log β changes by 5 % of the relative error of the gap's
    running mean (weight 0.9 on the past), at most 5 % an update, and stays within a factor of ten
    of where it started. Equal gaps give equal β, so processes that share their sums stay together.

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
        """Takes into account an update whose pairs were ``gap`` nats apart, where it is steered.

        The gap is CE⁻ − CE⁺ over the tokens that count, the mean of all processes; None, where
        nothing was measured, keeps β.
        """
        if self._objective.beta_schedule != "steered" or gap is None:
            return
        past, target, start = self._mean_gap, self._objective.target_gap, self._objective.beta
        mean = gap if past is None else _MEMORY * past + (1 - _MEMORY) * gap
        error = min(1.0, max(-1.0, (target - mean) / target))
        value = self.value * (1 + _RATE * error)
        self.value, self._mean_gap = min(start * _RANGE, max(start / _RANGE, value)), mean

    def save(self, checkpoint: Path) -> None:
        """Writes what continues it into a checkpoint's folder."""
        write_json(checkpoint / _FILE, {"value": self.value, "mean_gap": self._mean_gap})


@final
@dataclass
class RunCallback(TrainerCallback):  # type: ignore[misc]  # untyped in the library
    """Logs, validates, keeps the best weights and marks checkpoints; the main process writes.

    Attributes:
        trainer: Whose run it is.
        epochs: The data set holds this many behind one another.
        checkpoint_steps: After these updates a checkpoint is validated and saved.
        validate: Measures the model as it is; called by all processes.
        save_best: Writes the model as it is to ``run_dir/best``; called by all processes.
        best: (step, validation cross entropy) so far.
        beta: Of the next update.
        hard: Told the gaps of every update, where negatives are drawn anew.
        log: None on other processes.
        logged: Told each row of the log, before ``progress`` is.
        progress: Told (updates, all updates).
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
        """Sets the update's β."""
        self.trainer.beta = self.beta.at(state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Validates where a checkpoint is due; one that is not a number is never saved."""
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
        """Turns an update's sums into a row, and lets β learn from them."""
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
        """Keeps the best weights, then marks the checkpoint, in this order."""
        # Every process writes its random state into the folder; the marker must come after all.
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
