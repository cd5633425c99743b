"""The log of a run: a row per update in ``metrics.jsonl``, for TensorBoard, and as a curve."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ctscribe.base.files import atomic_write, writing
from ctscribe.base.rows import Row, line_of, read_rows, write_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVENTS = "events.out.tfevents.ctscribe"
"""TensorBoard finds it by its prefix; its usual name would carry the machine's."""
_FLUSH_EVERY = 25


class StepRow(Row):
    """One update."""

    step: int
    """Updates done with it."""


class MetricsRow(StepRow):
    """``metrics.jsonl`` of training: one update, in nats per answer token."""

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
    the update; None where branches share prompts, whose gradient is one."""
    negative_grad_norm: float | None = None
    """Of the negatives' weighted term; 0 where it is skipped; None as above."""
    beta: float | None = None
    """Weight of the negative's term."""
    validation_ce: float | None = None
    """At checkpoints: of validation reports given their own scan."""
    validation_other_ce: float | None = None
    """Given another patient's."""
    validation_gap: float | None = None


class ReinforceRow(StepRow):
    """``metrics.jsonl`` of reinforcement: one update, means over its sampled reports.

    Row 0 has nothing but the validation of what it started from.
    """

    reward: float | None = None
    own_f1: float | None = None
    """Of the findings, with those of the own patient."""
    other_f1: float | None = None
    """With those of another patient."""
    num_tokens: float | None = None
    """Of a report."""
    share_unfinished: float | None = None
    """Reports that ran into the length limit."""
    share_telling: float | None = None
    """Scans whose reports did not all earn the same; the others teach nothing."""
    sampled_ce: float | None = None
    """−log of a drawn token's probability, nats; estimates the entropy of what is written."""
    reference_ce: float | None = None
    """Of the references, nats per token, whether they are learned or not."""
    grad_norm: float | None = None
    """Before clipping."""
    validation_f1: float | None = None
    """Of the findings in reports of the validation scans, over all cells; chooses the best."""
    validation_coverage: float | None = None
    validation_precision: float | None = None
    validation_bleu_4: float | None = None


AnyStep = TypeVar("AnyStep", bound=StepRow)
Curve = tuple[str, str, str, str]
"""A row's field, its name in the figure, what its colour means, and the line's style."""


@final
class RunLog(Generic[AnyStep]):
    """Collects rows in memory and writes them a few dozen at a time.

    Earlier rows beyond ``after_step`` are dropped: an interrupted run had gone further than the
    checkpoint it continues from.
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
        """Adds an update's row; it reaches the disk within a few dozen updates."""
        self.rows.append(row)
        if len(self.rows) - self._num_written >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes what has been added."""
        new = self.rows[self._num_written :]
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(line_of, new))
        with writing(self._events), self._events.open("ab") as file:
            file.write(_as_events(new))
        self._num_written = len(self.rows)


def draw_loss_curve(rows: Sequence[MetricsRow], path: Path) -> None:
    """Writes `loss_figure`."""
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
    """What sampled reports earned over the updates, and the validation's scores."""
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
