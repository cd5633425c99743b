"""What the user sees: progress and sentences on stderr, tables and texts on stdout."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ctscribe.base.files import ProgressCallback
from ctscribe.base.outside_text import printable
from ctscribe.base.tables import read_csv
from ctscribe.base.workers import launched

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextmanager
def stage(title: str, unit: str | None = None) -> Iterator[ProgressCallback]:
    """A progress bar on a terminal, one line per tenth elsewhere; both with rate and time left.

    With a ``unit``, such as reports, a stage whose first report finds some done says that it goes
    on, and from where.
    """
    with stages((title, unit)) as (progress,):
        yield progress


@contextmanager
def stage_with_failures(
    title: str, unit: str | None = None
) -> Iterator[tuple[ProgressCallback, Callable[[str], None]]]:
    """As `stage`; the second callback takes the code of each failure, which are shown by code."""
    with stages((title, unit)) as (progress,):
        yield progress, progress.failed


@contextmanager
def stages(*named: tuple[str, str | None]) -> Iterator[list["_Part"]]:
    """As `stage`, for a stage with parts: the first is shown at once, others when they begin.

    Of several launched processes the first one alone tells.
    """
    console = Console(stderr=True, quiet=launched()[0] > 0)
    if not console.is_terminal:
        console.print(f"{named[0][0]} …", highlight=False)
        yield [_Part(*each, console, _Lines(console, each[0])) for each in named]
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # slow to import

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        tasks = [
            bar.add_task(title, total=None, note="", visible=title == named[0][0])
            for title, _ in named
        ]

        def show(task: "TaskID", done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note, visible=True)

        yield [
            _Part(*each, console, partial(show, task))
            for each, task in zip(named, tasks, strict=True)
        ]


@final
class _Lines:
    """Prints where a part is whenever a tenth more of it is done."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title, self._printed = console, title, -1

    def __call__(self, done: int, total: int, note: str) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._printed:
            self._printed = tenth
            line = f"  {self._title}: {done}/{total}{note and ', '}{note}"
            self._console.print(line, highlight=False, soft_wrap=True)


@final
class _Part:
    """Told how far a part of a stage is; measures how fast it goes since its first report."""

    def __init__(
        self,
        title: str,
        unit: str | None,
        console: Console,
        show: Callable[[int, int, str], None],
    ) -> None:
        self._title, self._unit, self._console, self._show = title, unit, console, show
        self._failures: Counter[str] = Counter()
        self._start: tuple[int, float] | None = None
        self._measured = ""

    def __call__(self, done: int, total: int) -> None:
        if self._start is None and done and self._unit:
            self.say(f"{self._title}: continues, {done} of {total} {self._unit} are there")
        self._show(done, total, self._note(done, total))

    def say(self, sentence: str) -> None:
        """Prints a sentence beside the bar."""
        self._console.print(sentence, highlight=False, soft_wrap=True)

    def failed(self, code: str) -> None:
        """Counts a failure."""
        self._failures[code] += 1

    def measured(self, told: str) -> None:
        """Takes what the next report shows of the work itself, such as a loss."""
        self._measured = told

    def _note(self, done: int, total: int) -> str:
        """What was measured, rate, time left and failures by code, as far as there are any."""
        now = time.monotonic()
        first, begun = self._start = self._start or (done, now)
        parts = [self._measured] if self._measured else []
        if done > first and now > begun:
            rate = (done - first) / (now - begun)
            per_minute = f"{60 * rate:.1f} per minute"
            parts.append(f"{rate:.1f} per second" if rate >= 1 else per_minute)
            parts.append(f"{_duration((total - done) / rate)} left")
        codes = (f"{code} {count}" for code, count in sorted(self._failures.items()))
        skipped = f"{self._failures.total()} skipped: {', '.join(codes)}"
        return ", ".join([*parts, skipped] if self._failures else parts)


def _duration(seconds: float) -> str:
    """Formats as 9 s, 5:03 or 2:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = f"{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.lstrip("0")


def show_tables(paths: Sequence[Path]) -> None:
    """Prints each table from its CSV file, fitted to the terminal."""
    for path in paths:
        table = read_csv(path.with_suffix(".csv"))
        header, rows = table.columns, [[*cells.values()] for cells in table.rows.values()]
        metrics = [i for i, name in enumerate(header) if i + 1 < len(header) and i % 3 == 1]
        shown = Table(title=_plain(path.stem), title_justify="left", padding=(0, 1))
        for column in (0, *metrics):
            shown.add_column(_plain(header[column]), justify="right" if column else "left")
        for row in rows:
            cells = [_with_interval(*row[i : i + 3]) for i in metrics]
            shown.add_row(_plain(row[0]), *cells)
        console = Console(width=None if sys.stdout.isatty() else 120)
        with console.capture() as drawn:
            console.print(shown)
        print_text(drawn.get().rstrip("\n"))


def _with_interval(value: str, low: str, high: str) -> str:
    try:
        between = f"{float(low):.3f}–{float(high):.3f}" if low else "no interval"
        return f"{float(value):.3f}\n[dim]{between}[/dim]"
    except ValueError:
        return _plain(value)


def say(sentence: str) -> None:
    """Prints a sentence on one line of stderr, beside what the command gives out."""
    Console(stderr=True).print(_plain(_one_line(sentence)), highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Prints what the command gives out, which may be piped on, on stdout."""
    print(printable(text))


def print_json(value: object) -> None:
    """Prints what the command gives out for a program."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def complain(sentence: str) -> None:
    """Says in one line why the command ends."""
    print(printable(f"ctscribe: {_one_line(sentence)}"), file=sys.stderr)


def _one_line(sentence: str) -> str:
    return " ".join(sentence.split("\n"))


def _plain(text: str) -> str:
    """A text in which neither the terminal nor rich reads a command."""
    return escape(printable(text))
