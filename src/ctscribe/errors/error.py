"""The one error the user sees: a code, and a sentence that says what to do."""

from typing import final


@final
class CtscribeError(Exception):
    """Bad input or a bad request, told in one sentence.

    The sentence names what must hold, what was found, in which study, and what to do.
    The command line prints it without a traceback and exits with status 1.

    Args:
        code: Stable identifier such as ``E_TRUNCATED``, for counting and for ``skipped.jsonl``.
        sentence: One sentence; never contains patient data beyond the study's own name.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.sentence} [{self.code}]"
