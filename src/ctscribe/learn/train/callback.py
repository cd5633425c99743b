"""What happens beside the updates: log, validate, keep the best, mark checkpoints complete."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import final

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ctscribe.base.files import ProgressCallback
from ctscribe.learn.train.beta import Beta
from ctscribe.learn.train.checkpoints import seal
from ctscribe.learn.train.epochs import HardPairs
from ctscribe.learn.train.run_log import MetricsRow, RunLog
from ctscribe.learn.train.tally import means
from ctscribe.learn.train.trainer import PairTrainer, not_a_number
from ctscribe.learn.train.validation import Validation


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
    log: RunLog | None
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
        self.trainer.beta = self.beta.value

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
        self.log.add(
            MetricsRow(
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
        )
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
        seal(self.run_dir, step, own_ce, self.best)
