"""What happens beside the updates: log, validate, keep the best, mark checkpoints complete."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ctscribe.base.files import ProgressCallback
from ctscribe.base.rows import Row, read_rows, write_rows
from ctscribe.learn.train.beta import Beta
from ctscribe.learn.train.checkpoints import seal
from ctscribe.learn.train.epochs import HardPairs
from ctscribe.learn.train.scorer import Validation
from ctscribe.learn.train.trainer import PairTrainer, means, not_a_number

_FLUSH_EVERY = 25
EVENTS = "events.out.tfevents.ctscribe"
"""TensorBoard finds it by its prefix; its usual name would carry the machine's."""


class MetricsRow(Row):
    """``metrics.jsonl``: one update, in nats per answer token."""

    step: int
    epoch: float
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    positive_ce: float | None
    """Mean over the update's studies."""
    negative_ce: float | None
    """Mean over those that are finite."""
    gap: float | None
    """negative_ce − positive_ce."""
    share_capped: float | None
    """Of the negatives: those capped or satisfied, which carry no gradient."""
    share_skipped: float | None
    """Of the negative branches: those without a backward pass."""
    positive_finding_ce: float | None = None
    """Mean over the tokens of sentences that state a finding."""
    positive_boilerplate_ce: float | None = None
    """Mean over all other tokens."""
    negative_finding_ce: float | None = None
    negative_boilerplate_ce: float | None = None
    scope_gap: float | None = None
    """Mean of CE⁻ − CE⁺ over the tokens that count in the negative's term; steers β."""
    positive_grad_norm: float | None = None
    """Of the positives' gradient alone in one micro-batch, before clipping, root mean square over
    the update."""
    negative_grad_norm: float | None = None
    """Of the negatives' weighted term; 0 where it is skipped."""
    beta: float | None = None
    """Weight of the negative's term."""
    validation_ce: float | None = None
    """At checkpoints: of validation reports given their own scan."""
    validation_other_ce: float | None = None
    """Given another patient's."""
    validation_gap: float | None = None


@final
class RunLog:
    """Collects rows in memory and writes them a few dozen at a time.

    Args:
        run_dir: Where the files go.
        after_step: Rows beyond this update are dropped: an interrupted run had gone further than
            the checkpoint it continues from.
    """

    def __init__(self, run_dir: Path, after_step: int) -> None:
        self._run_dir = run_dir
        self._path = run_dir / "metrics.jsonl"
        earlier = read_rows(self._path, MetricsRow, partial=True) if self._path.exists() else []
        self.rows = [row for row in earlier if row.step <= after_step]
        self._num_written = len(self.rows)
        write_rows(self._path, self.rows)
        events = run_dir / "tensorboard" / EVENTS
        events.parent.mkdir(parents=True, exist_ok=True)
        self._events = events
        self._events.write_bytes(_as_events(self.rows))

    def add(self, row: MetricsRow) -> None:
        """Adds an update's row; it reaches the disk within a few dozen updates."""
        self.rows.append(row)
        if len(self.rows) - self._num_written >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes what has been added."""
        new = self.rows[self._num_written :]
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(row.model_dump_json() + "\n" for row in new)
        with self._events.open("ab") as file:
            file.write(_as_events(new))
        self._num_written = len(self.rows)

    def draw(self) -> None:
        """Draws ``loss_curve.png``."""
        draw_loss_curve(self.rows, self._run_dir / "loss_curve.png")


def draw_loss_curve(rows: Sequence[MetricsRow], path: Path) -> None:
    """Cross entropy of both branches over the updates, and the validation's."""
    from ctscribe.base.figures import new_figure, write_figure

    figure, (axes,) = new_figure(7.0, 4.0)
    curves = (
        ("positive_ce", "own scan, training", "-"),
        ("negative_ce", "negative, training", "-"),
        ("validation_ce", "own scan, validation", "o--"),
        ("validation_other_ce", "another patient's scan, validation", "o--"),
    )
    for name, label, style in curves:
        points = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4, linewidth=1)
    axes.set(xlabel="update", ylabel="cross entropy, nats per answer token", ylim=(0, None))
    axes.legend(frameon=False)
    write_figure(path, figure)


def _as_events(rows: Sequence[MetricsRow]) -> bytes:
    from io import BytesIO

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    writer = RecordWriter(buffer)
    now = time.time()
    for row in rows:
        values = [
            Summary.Value(tag=f"train/{name}", simple_value=value)
            for name, value in row.model_dump(exclude={"step"}).items()
            if value is not None
        ]
        event = Event(wall_time=now, step=row.step, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return buffer.getvalue()


@final
@dataclass
class Follower(TrainerCallback):  # type: ignore[misc]  # untyped in the library
    """Follows a training run; only the main process writes.

    Attributes:
        trainer: The one followed.
        run_dir: Its folder.
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
    run_dir: Path
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

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Sets the update's β."""
        self.trainer.beta = self.beta.value

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
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
        **_: Any,  # noqa: ANN401
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
        seen = self._validation
        self.log.add(
            MetricsRow(
                step=state.global_step,
                epoch=self.epochs * state.global_step / state.max_steps,
                learning_rate=logs["learning_rate"],
                grad_norm=logs["grad_norm"],
                beta=self.trainer.beta,
                **measured,
                validation_ce=seen and seen.own_ce,
                validation_other_ce=seen and seen.other_ce,
                validation_gap=seen and seen.gap,
            )
        )
        self.progress(state.global_step, state.max_steps)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
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
