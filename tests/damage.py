"""Files as a bad disk or a bad copy leaves them."""

from pathlib import Path


def flip_bit(path: Path, at: float = 0.5) -> None:
    """Flips the lowest bit of one byte; ``at`` is its place as a share of the file."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)
