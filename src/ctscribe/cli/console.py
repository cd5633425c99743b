"""What the user sees: progress and sentences on stderr, tables and texts on stdout."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ctscribe.base.files import ProgressCallback
from ctscribe.base.tables import read_csv


@contextmanager
def stage(title: str) -> Iterator[ProgressCallback]:
    """A progress bar on a terminal, one line per tenth elsewhere; both with rate and time left."""
    with stage_with_failures(title) as (progress, _):
        yield progress


@contextmanager
def stage_with_failures(title: str) -> Iterator[tuple[ProgressCallback, Callable[[str], None]]]:
    """As `stage`; the second callback takes the code of each failure, which are shown by code."""
    console = Console(stderr=True)
    pace = _Pace()
    if not console.is_terminal:
        console.print(f"{title} …", highlight=False)
        printed = -1

        def tell(done: int, total: int) -> None:
            nonlocal printed
            note = pace.note(done, total)
            tenth = 10 * done // max(total, 1)
            if tenth > printed:
                printed = tenth
                line = f"  {title}: {done}/{total}{note and ', '}{note}"
                console.print(line, highlight=False, soft_wrap=True)

        yield tell, pace.failed
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # slow to import

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=pace.note(done, total))

        yield show, pace.failed


@final
class _Pace:
    """Measures how fast a stage goes since its first report, and counts its failures."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self._start: tuple[int, float] | None = None

    def failed(self, code: str) -> None:
        self._failures[code] += 1

    def note(self, done: int, total: int) -> str:
        """Rate, time left and failures by code, as far as there are any."""
        now = time.monotonic()
        first, begun = self._start = self._start or (done, now)
        parts = []
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
        shown = Table(title=path.stem, title_justify="left", padding=(0, 1))
        for column in (0, *metrics):
            shown.add_column(header[column], justify="right" if column else "left")
        for row in rows:
            cells = [_with_interval(*row[i : i + 3]) for i in metrics]
            shown.add_row(escape(row[0]), *cells)
        console = Console(width=None if sys.stdout.isatty() else 120)
        with console.capture() as drawn:
            console.print(shown)
        print_text(drawn.get().rstrip("\n"))


def _with_interval(value: str, low: str, high: str) -> str:
    try:
        return f"{float(value):.3f}\n[dim]{float(low):.3f}–{float(high):.3f}[/dim]"
    except ValueError:
        return escape(value)


def say(sentence: str) -> None:
    """Prints a sentence on stderr, beside what the command gives out."""
    Console(stderr=True).print(escape(sentence), highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Prints what the command gives out, which may be piped on, on stdout."""
    print(text)


def complain(sentence: str) -> None:
    """Says in one line why the command ends."""
    print(f"ctscribe: {sentence}", file=sys.stderr)
