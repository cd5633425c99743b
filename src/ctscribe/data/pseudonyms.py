"""Pseudonyms for patients and studies, which depend on their identifiers and a secret key (HMAC).

A hash of an identifier alone could be reversed by trying all identifiers; that needs the key, which
stays with the scans. Begin at `open_key`.
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
    """Makes the pseudonyms of one key."""

    key: bytes = field(repr=False)

    def of(self, kind: Literal["patient", "scan", "file", "accession"], *identifier: str) -> str:
        """The pseudonym for an identifier, such as ``patient-6f1a09c2d4e8b375``."""
        message = "\0".join((kind, *(nfc(part.strip()) for part in identifier)))
        digest = hmac.new(self.key, message.encode(errors="surrogateescape"), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:16]}"


def open_key(path: Path) -> tuple[Pseudonyms, bool]:
    """Reads a key, or creates one that only its owner may read.

    Returns:
        The pseudonyms of the key, and whether it was created.

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
