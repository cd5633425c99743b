"""Files as a bad disk, a bad copy or a full disk leaves them, and as a stranger may write them."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOSTILE = (
    *(b"", b"\0", b"null", b"[]", b"3", b'"x"', b"{", b"\xff\xfe{}", b'{"a": 1, "a": 2}'),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5_000 + b"}", b'{"a": "\\ud800"}'),
)
"""Content that is no JSON object, or one that parsers choke on."""


def flip_bit(path: Path, at: float = 0.5) -> None:
    """Flips the lowest bit of one byte; ``at`` is its place as a share of the file."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Within the block no file gets longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
