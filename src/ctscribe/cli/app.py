"""The entry point: every command, and errors and interruptions as one sentence."""

import os
import signal
import sys
from types import FrameType

from ctscribe.base.workers import end_workers, launched
from ctscribe.cli import (  # noqa: F401 - they register
    data,
    drafts,
    environment,
    generate,
    learn,
    measure,
    serve,
)
from ctscribe.cli.console import complain
from ctscribe.cli.last_guard import explained, is_output_closed, let_go_of_output
from ctscribe.cli.options import app

__all__ = ["app", "main"]

RESUMED = {
    *("alter", "calibrate", "card", "demo", "evidence", "experiment", "features", "generate"),
    *("phantom", "prepare", "reinforce", "train", "tune", "warm-up"),
}
"""Commands that go on where they were stopped."""


def main() -> None:
    """Runs a command; whatever goes wrong ends in one sentence.

    The status is 1 for bad input or a bad request and 70 for what nobody foresaw; 130 after an
    interruption and 143 after SIGTERM, with all workers gone; and 141, without a sentence, when
    nobody reads the output any more.
    """
    # other libraries' bars would cross ours, and their locks outlive a worker that is ended
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    _listen()
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        what = "interrupted" if number == signal.SIGINT else "ended by another process"
        ends = "to continue" if sys.argv[1:2] and sys.argv[1] in RESUMED else "to begin anew"
        complain(f"{what}; run the same command again {ends}")
        sys.exit(128 + number)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_output_closed():
            let_go_of_output()
            sys.exit(141)
        told, status = explained(error)
        let_go_of_output()
        complain(str(told))
        sys.exit(status)


def _listen() -> None:
    """Of several launched processes the first one says why they end; the others end at once."""
    is_first = launched()[0] == 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop if is_first else signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the workers, then whatever is at work here; called again, this process at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _leave)
    end_workers()
    raise KeyboardInterrupt(number)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
