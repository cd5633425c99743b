"""What the user sees: bars, sentences, tables."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ctscribe.files import ProgressCallback


@contextmanager
def stage(title: str) -> Iterator[ProgressCallback]:
    """A progress bar on a terminal; one line per tenth elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{title} …", highlight=False)
        printed = -1

        def tell(done: int, total: int) -> None:
            nonlocal printed
            tenth = 10 * done // max(total, 1)
            if tenth > printed:
                printed = tenth
                console.print(f"  {title}: {done}/{total}", highlight=False)

        yield tell
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_tables(paths: Sequence[Path]) -> None:
    """Each table as it stands in its CSV file, fitted to the terminal."""
    for path in paths:
        header, *rows = csv.reader(path.with_suffix(".csv").open(encoding="utf-8", newline=""))
        metrics = [i for i, name in enumerate(header) if i + 1 < len(header) and i % 3 == 1]
        shown = Table(title=path.stem, title_justify="left", padding=(0, 1))
        for column in (0, *metrics):
            shown.add_column(header[column], justify="right" if column else "left")
        for row in rows:
            cells = [_with_interval(*row[i : i + 3]) for i in metrics]
            shown.add_row(escape(row[0]), *cells)
        Console(width=None if sys.stdout.isatty() else 120).print(shown)


def _with_interval(value: str, low: str, high: str) -> str:
    try:
        return f"{float(value):.3f}\n[dim]{float(low):.3f}–{float(high):.3f}[/dim]"
    except ValueError:
        return escape(value)


def say(sentence: str) -> None:
    """Tells something beside the output proper."""
    Console(stderr=True).print(escape(sentence), highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Prints output proper, which may be piped on."""
    print(text)


def complain(sentence: str) -> None:
    """Says in one line why the command ends."""
    print(f"ctscribe: {sentence}", file=sys.stderr)
