"""Entry point: all commands, and errors as one sentence."""

import sys

from ctscribe.cli import data, models, scores, texts
from ctscribe.cli.console import complain
from ctscribe.cli.options import app
from ctscribe.errors import CtscribeError

__all__ = ["app", "data", "main", "models", "scores", "texts"]


def main() -> None:
    """Entry point: a bad input or request ends in one sentence and status 1."""
    try:
        app()
    except CtscribeError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted; run the same command again to continue")
        sys.exit(130)
