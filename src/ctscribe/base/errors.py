"""The package's error for users: a code, and a sentence that says what to do."""

from typing import final

from ctscribe.base.error_codes import CODES
from ctscribe.base.outside_text import printable


@final
class CtscribeError(Exception):
    """Bad input or a bad request, told in one sentence.

    The sentence names what must hold, what was found, in which study, and what to do.
    The command line prints it without a traceback and exits with status 1. Control characters in
    it are escaped, see `printable`.

    Args:
        code: One of `CODES`, such as ``E_TRUNCATED``, for counting and for ``skipped.jsonl``.
        told: The sentence without its last part, what to do, which is the code's remedy. It never
            contains patient data beyond the study's own name.
    """

    def __init__(self, code: str, told: str) -> None:
        told = printable(told)
        super().__init__(code, told)
        remedy = CODES[code].remedy
        self.code = code
        self.told = told
        self.sentence = f"{told}; {remedy[0].lower()}{remedy.removesuffix('.')[1:]}"

    def __str__(self) -> str:
        return f"{self.sentence} [{self.code}]"
