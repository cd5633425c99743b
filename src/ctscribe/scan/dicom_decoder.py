"""Compressed DICOM slices → stored values, by a child process that can do no harm."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGXCPU
from threading import Event, Timer
from typing import final

import numpy as np
from jaxtyping import Integer

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_decode import ANSWER, FRAME_CPU_S, MEMORY_BYTES, REQUEST

Stored = Integer[np.ndarray, "rows columns"]
_FRAME_S = 60.0
"""For a decoder that waits for ever; one that works for ever is ended by its own limit."""
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
            CtscribeError: ``E_BOMB`` when it takes more than 8 s of CPU time, 60 s or 3 GB.
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
            is_fit = kind == b"Y" and (rows, columns) == shape and dtype in _TYPES
            values = self._take(rows * columns * 2) if is_fit else b""
        except (BrokenPipeError, EOFError):
            self._process.kill()
            if late.is_set() or self._process.wait() == -SIGXCPU:
                raise self._too_much() from None
            raise EOFError from None
        finally:
            timer.cancel()
        if kind == b"M":
            raise self._too_much()
        if not is_fit:
            raise EOFError
        return np.frombuffer(values, dtype.decode()).reshape(rows, columns)

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
            f"{self._study} must be CT, but one slice cannot be decompressed within "
            f"{FRAME_CPU_S} s and {MEMORY_BYTES >> 30} GB, which any CT can",
        )


@contextmanager
def open_decoder(study: str) -> Iterator[Decoder]:
    """Starts a child process for the length of the block; it takes about half a second."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ctscribe.scan.dicom_decode"],
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
