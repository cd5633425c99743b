"""A run's log: one row per update, in ``metrics.jsonl`` and for TensorBoard, and its figure."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ctscribe.base.files import atomic_write, writing
from ctscribe.base.rows import Row, line_of, read_rows, write_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVENTS = "events.out.tfevents.ctscribe"
"""TensorBoard finds it by its prefix; its usual name would contain the machine's name."""
_FLUSH_EVERY = 25


class StepRow(Row):
    """One update."""

    step: int
    """Its number, from 1."""


class MetricsRow(StepRow):
    """``metrics.jsonl`` of training: one update, in nats per answer token."""

    epoch: float
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    positive_ce: float | None
    """Mean over the update's studies."""
    negative_ce: float | None
    """Mean over the negatives whose loss is finite."""
    gap: float | None
    """negative_ce − positive_ce."""
    share_capped: float | None
    """Share of the negatives that are capped or satisfied, and so have no gradient."""
    share_skipped: float | None
    """Share of the micro-batches without a backward pass through their negatives."""
    positive_finding_ce: float | None = None
    """Mean over the tokens of sentences that state a finding."""
    positive_boilerplate_ce: float | None = None
    """Mean over all other tokens."""
    negative_finding_ce: float | None = None
    negative_boilerplate_ce: float | None = None
    scope_gap: float | None = None
    """Mean of CE⁻ − CE⁺ over the tokens in ``objective.scope``; steers β."""
    positive_grad_norm: float | None = None
    """Norm of one micro-batch's gradient from the positives alone, before clipping: root mean
    square over the update. None where branches share prompts and so one backward pass."""
    negative_grad_norm: float | None = None
    """The same from the negatives' weighted term; a skipped one counts as 0."""
    beta: float | None = None
    """Weight of the negative's term."""
    validation_ce: float | None = None
    """At checkpoints only: of validation reports given their own scan."""
    validation_other_ce: float | None = None
    """Given another patient's scan."""
    validation_gap: float | None = None


class ReinforceRow(StepRow):
    """``metrics.jsonl`` of reinforcement: one update, means over its sampled reports.

    Row 0 holds only the validation of the starting weights.
    """

    reward: float | None = None
    own_f1: float | None = None
    """F1 of the stated findings against the labels of the scan's own patient."""
    other_f1: float | None = None
    """The same against the labels of another patient."""
    num_tokens: float | None = None
    """Length of a report."""
    share_unfinished: float | None = None
    """Share of the reports that ran into the length limit."""
    share_telling: float | None = None
    """Share of the scans whose reports differ in reward; the others have no gradient."""
    sampled_ce: float | None = None
    """Mean −log probability of the sampled tokens, nats: an estimate of the policy's entropy."""
    reference_ce: float | None = None
    """Cross entropy of the reference reports, nats per token, even where its weight is 0."""
    grad_norm: float | None = None
    """Before clipping."""
    validation_f1: float | None = None
    """Micro F1 of the findings in the validation reports; the best weights have the highest."""
    validation_coverage: float | None = None
    validation_precision: float | None = None
    validation_bleu_4: float | None = None


AnyStep = TypeVar("AnyStep", bound=StepRow)
Curve = tuple[str, str, str, str]
"""(field of the row, label, key of `MEANINGS` for the colour, line style)."""


@final
class RunLog(Generic[AnyStep]):
    """Collects rows and appends them to the files every few dozen updates.

    Rows of an earlier call beyond ``after_step`` are dropped: that call was interrupted after the
    checkpoint that is resumed from.
    """

    def __init__(self, run_dir: Path, after_step: int, row_type: type[AnyStep]) -> None:
        self._path = run_dir / "metrics.jsonl"
        earlier = read_rows(self._path, row_type, partial=True) if self._path.exists() else []
        self.rows = [row for row in earlier if row.step <= after_step]
        self._num_written = len(self.rows)
        write_rows(self._path, self.rows)
        self._events = run_dir / "tensorboard" / EVENTS
        with atomic_write(self._events) as file:
            file.write(_as_events(self.rows))

    def add(self, row: AnyStep) -> None:
        """Adds an update's row."""
        self.rows.append(row)
        if len(self.rows) - self._num_written >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes all rows added since the last flush."""
        new = self.rows[self._num_written :]
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(line_of, new))
        with writing(self._events), self._events.open("ab") as file:
            file.write(_as_events(new))
        self._num_written = len(self.rows)


def draw_loss_curve(rows: Sequence[MetricsRow], path: Path) -> None:
    """Writes `loss_figure` to a file."""
    from ctscribe.base.figures import write_figure

    write_figure(path, loss_figure(rows))


def loss_figure(rows: Sequence[MetricsRow]) -> "Figure":
    """Cross entropy of both branches over the updates, and the validation's."""
    curves = (
        ("positive_ce", "own scan, training", "own scan", "-"),
        ("negative_ce", "negative, training", "another scan", "-"),
        ("validation_ce", "own scan, validation", "own scan", "o--"),
        ("validation_other_ce", "another patient's scan, validation", "another scan", "o--"),
    )
    return _curves(rows, curves, "cross entropy, nats per answer token")


def draw_reward_curve(rows: Sequence[ReinforceRow], path: Path) -> None:
    """Draws the scores of sampled reports over the updates, and those of validation."""
    from ctscribe.base.figures import write_figure

    curves = (
        ("own_f1", "F1 with the own patient, sampled", "own scan", "-"),
        ("other_f1", "F1 with another patient, sampled", "another scan", "-"),
        ("validation_f1", "F1, validation", "own scan", "o--"),
        ("validation_bleu_4", "BLEU-4, validation", "BLEU-4", "o--"),
    )
    write_figure(path, _curves(rows, curves, "score of reports"))


def _curves(rows: Sequence[StepRow], curves: Sequence[Curve], what: str) -> "Figure":
    from ctscribe.base.figures import MEANINGS, new_figure

    figure, (axes,) = new_figure(7.0, 4.0)
    for name, label, meaning, style in curves:
        points = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
        if points:
            (drawn,) = axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
            drawn.set(color=MEANINGS[meaning][0], linewidth=1)
    axes.set(xlabel="update", ylabel=what, ylim=(0, None))
    if axes.has_data():
        axes.legend(frameon=False)
    return figure


def _as_events(rows: Sequence[StepRow]) -> bytes:
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
