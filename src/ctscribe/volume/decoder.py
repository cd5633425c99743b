"""Compressed DICOM slices → stored values, by a child process that can do no harm."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from typing import final

import numpy as np
from jaxtyping import Integer

from ctscribe.errors import CtscribeError
from ctscribe.volume.decode import ANSWER, MEMORY_BYTES, REQUEST

Stored = Integer[np.ndarray, "rows columns"]
_FRAME_S = 20.0
"""Far more than the largest slice takes."""
_TYPES = (b"<i2", b"<u2")


@final
class Decoder:
    """A child process that decompresses; see `open_decoder`."""

    def __init__(self, process: "subprocess.Popen[bytes]", study: str) -> None:
        self._process = process
        self._study = study

    def decode(self, content: bytes | None, frame: int, shape: tuple[int, int]) -> Stored:
        """Stored values of one frame.

        Args:
            content: A whole DICOM file; None for that of the last call.
            frame: Index within the file.
            shape: Rows and columns that its header states.

        Raises:
            CtscribeError: ``E_BOMB`` when it takes more than 20 s or 3 GB.
            EOFError: When it cannot be decompressed, or not to that shape.
        """
        late = Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = Timer(_FRAME_S, end)
        timer.start()
        try:
            kind, dtype, rows, columns = self._ask(content, frame)
            if kind == b"M":
                raise self._too_much()
            if kind != b"Y" or (rows, columns) != shape or dtype not in _TYPES:
                raise EOFError
            values = np.frombuffer(self._take(rows * columns * 2), dtype.decode())
        except (BrokenPipeError, EOFError):
            if late.is_set():
                raise self._too_much() from None
            raise EOFError from None
        finally:
            timer.cancel()
        return values.reshape(rows, columns)

    def _ask(self, content: bytes | None, frame: int) -> tuple[bytes, bytes, int, int]:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(REQUEST.pack(len(content or b""), frame))
        stdin.write(content or b"")
        stdin.flush()
        kind, dtype, rows, columns = ANSWER.unpack(self._take(ANSWER.size))
        return kind, dtype, rows, columns

    def _take(self, num_bytes: int) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        found = stdout.read(num_bytes)
        if len(found) < num_bytes:
            raise EOFError
        return found

    def _too_much(self) -> CtscribeError:
        return CtscribeError(
            "E_BOMB",
            f"{self._study} must be CT, but one slice cannot be decompressed within {_FRAME_S:g} s "
            f"and {MEMORY_BYTES >> 30} GB, which any CT can; check where it comes from",
        )


@contextmanager
def open_decoder(study: str) -> Iterator[Decoder]:
    """Starts a child process for the length of the block; it takes about half a second."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ctscribe.volume.decode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **one_thread},
    )
    try:
        yield Decoder(process, study)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except BrokenPipeError:
                pass
