"""Changes of bytes that the fuzz bench makes to files of any kind."""

import struct

import numpy as np

ODD_INTS: tuple[int, ...] = (0, 1, -1, 2, 7, 127, 255, 348, 352, 540, 1024, 32767, -32768)
ODD_INTS += (65535, 2**31 - 1, -(2**31))
Random = np.random.Generator


def changed_bytes(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """One to four changes of bytes; half of them near the beginning, where headers lie."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        reach = min(len(changed), 1000) if random.random() < 0.5 else len(changed)
        at = int(random.integers(0, max(1, reach)))
        change = random.choice(["bit", "byte", "word", "cut", "drop", "insert", "repeat", "splice"])
        span = int(random.choice([1, 2, 4, 16, 300]))
        if change == "bit" and changed:
            changed[at] ^= 1 << int(random.integers(8))
        elif change == "byte" and changed:
            changed[at] = int(random.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        elif change == "word":
            changed[at : at + 4] = struct.pack("<q", int(random.choice(ODD_INTS)))[:4]
        elif change == "cut":
            del changed[at:]
        elif change == "drop":
            del changed[at : at + span]
        elif change == "insert":
            changed[at:at] = random.bytes(span)
        elif change == "repeat":
            changed[at:at] = changed[at : at + span] * 3
        else:
            other = others[int(random.integers(len(others)))]
            changed[at:] = other[int(random.integers(len(other))) :]
    return bytes(changed)
