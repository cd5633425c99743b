"""New names for patients and studies: the same for the same key, and nothing without it.

A hash of an identifier alone would be no secret, because all identifiers can be tried; with a key
that stays where the scans are, nobody else can. Begin at `open_key`.
"""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_text, writing
from ctscribe.base.outside_text import nfc

_KEY = re.compile(r"[0-9a-f]{64}\n?")


@final
@dataclass(frozen=True)
class Pseudonyms:
    """Names by one key."""

    key: bytes = field(repr=False)

    def of(self, kind: Literal["patient", "scan", "file", "accession"], *identifier: str) -> str:
        """A name for what has this identifier, such as ``patient-6f1a09c2d4e8b375``."""
        told = "\0".join((kind, *(nfc(part.strip()) for part in identifier)))
        digest = hmac.new(self.key, told.encode(errors="surrogateescape"), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:16]}"


def open_key(path: Path) -> tuple[Pseudonyms, bool]:
    """Reads a key, or makes one that its owner alone may read where there is none.

    Returns:
        The names by it, and whether it was made.

    Raises:
        CtscribeError: ``E_KEY`` for a file that holds no key, ``E_WRITE`` or as `read_text`.
    """
    is_new = not path.exists()
    if is_new:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{secrets.token_hex(32)}\n")
    found = read_text(path)
    if not _KEY.fullmatch(found):
        raise CtscribeError(
            "E_KEY", f"{path} must hold a key of 64 hexadecimal digits, but does not"
        )
    return Pseudonyms(bytes.fromhex(found)), is_new
