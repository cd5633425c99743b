"""Text from a model or a file, made harmless to look at."""

import re

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but white space
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction overrides, invisible signs
    "\ud800-\udfff\ufffe\uffff]"  # halves of surrogate pairs, non-characters
)


def printable(text: str) -> str:
    """Shows characters that control, hide or reorder text, e.g. as ``⟨U+202E⟩``."""
    return _UNPRINTABLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def signed_mm(value: float) -> str:
    """A coordinate in mm with one decimal and a true minus sign."""
    return f"{value:.1f}".replace("-", "−")
