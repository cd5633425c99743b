"""The entry point: every command, and errors as one sentence."""

import sys

from ctscribe.base.errors import CtscribeError
from ctscribe.cli import data, learn, measure  # noqa: F401 - each registers its commands
from ctscribe.cli.console import complain
from ctscribe.cli.options import app

__all__ = ["app", "main"]


def main() -> None:
    """Runs a command; bad input or a bad request ends in one sentence and status 1."""
    try:
        app()
    except CtscribeError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted; run the same command again to continue")
        sys.exit(130)
