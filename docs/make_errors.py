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
    rows = [
        (number, row.told, ", ".join(f"`{code}`" for code in sorted(row.codes)) or "–")
        for number, row in CATALOGUE.items()
    ]
    parts += [_CATALOGUE, *format_markdown(("#", "input", "ends in"), rows, num_texts=3)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    write_text(TARGET, page())
