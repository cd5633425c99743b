"""The entry point: every command, and errors as one sentence."""

import sys

from ctscribe.cli import data, learn, measure  # noqa: F401 - each registers its commands
from ctscribe.cli.console import complain
from ctscribe.cli.last_guard import explained, is_output_closed, let_go_of_output
from ctscribe.cli.options import app

__all__ = ["app", "main"]


def main() -> None:
    """Runs a command; whatever goes wrong ends in one sentence.

    The status is 1 for bad input or a bad request, 70 for what nobody foresaw, 130 after Ctrl-C,
    and 141 without a sentence when nobody reads the output any more.
    """
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except KeyboardInterrupt:
        complain("interrupted; run the same command again to continue")
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_output_closed():
            let_go_of_output()
            sys.exit(141)
        told, status = explained(error)
        let_go_of_output()
        complain(str(told))
        sys.exit(status)
