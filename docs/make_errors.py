"""Writes docs/errors.md from the codes that the package declares."""

from pathlib import Path

from ctscribe.base.error_codes import CODES
from ctscribe.base.files import write_text
from ctscribe.base.tables import format_markdown
from tests.catalogue.catalogue import CATALOGUE

TARGET = Path(__file__).with_name("errors.md")
_HEAD = """# Errors and warnings

Every failure ends in one sentence that says what must hold, what was found, in which study and
what to do; it closes with one of these codes. `prepare` writes failures to `skipped.jsonl` and
goes on. This page is written by `make docs`.
"""

_STATUSES = """## Exit statuses

What a command leaves to the shell; standard output holds what it gives out, standard error all that
it says.
"""
_STATUS_ROWS = (
    ("0", "Done; or `serve` was ended by Ctrl-C or SIGTERM."),
    ("1", "Refused: bad input, or a request that cannot be met; one sentence says why."),
    ("2", "Misunderstood: a command, argument or option that is not there, or lacks."),
    ("70", "Something that nobody foresaw (`E_INTERNAL`); a file says where."),
    ("130", "Interrupted by Ctrl-C; run again, most commands go on where they were stopped."),
    ("137", "Killed from outside (SIGKILL), mostly for want of memory; run again."),
    ("141", "Nobody reads the output any more, as after `| head`."),
    ("143", "Ended by SIGTERM; as 130."),
)
_CATALOGUE = """## Bad inputs: how each is known to end

What reaches a reader of CT in practice, and the codes it ends in; a dash says that it is read as it
is, or kept out. `tests/catalogue` builds every row; `make bench NAME=fuzz` mutates 10,000 files
beside.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, start in (
        ("Errors: the volume or the command is refused", "E_"),
        ("Warnings: the volume is used, and the code stands in its record", "W_"),
    ):
        parts += [f"## {title}", ""]
        codes = [
            (f"`{code}`", told.meaning, told.remedy)
            for code, told in CODES.items()
            if code.startswith(start)
        ]
        parts += [*format_markdown(("code", "meaning", "what to do"), codes, num_texts=3), ""]
    parts += [_STATUSES, *format_markdown(("status", "meaning"), _STATUS_ROWS, num_texts=2), ""]
    rows = [
        (number, row.told, ", ".join(f"`{code}`" for code in sorted(row.codes)) or "–")
        for number, row in CATALOGUE.items()
    ]
    parts += [_CATALOGUE, *format_markdown(("#", "input", "ends in"), rows, num_texts=3)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    write_text(TARGET, page())
