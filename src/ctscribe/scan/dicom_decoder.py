"""Compressed DICOM slices → stored values, decompressed in a child process with strict limits.

Decoders are native code and may have bugs that a hostile file exploits. The child process limits
the memory and CPU time that such a file can take, and cannot write files. Requests go to its
standard input and answers come from its standard output, both as plain bytes: nothing is unpickled.
"""

import os
import resource
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from signal import SIGXCPU
from threading import Event, Timer
from typing import BinaryIO, final

import numpy as np
from jaxtyping import Integer

from ctscribe.base.errors import CtscribeError

Stored = Integer[np.ndarray, "rows columns"]
MEMORY_BYTES = 3 << 30
FRAME_CPU_S = 8
"""CPU time per frame, far more than the largest slice takes; independent of the machine's load."""
_FRAME_S = 60.0
"""Wall time per frame, for a decoder that hangs without using CPU time."""
_TYPES = (b"<i2", b"<u2")
REQUEST = struct.Struct("<QI")
"""Length of the file that follows (0: same file as before), index of the frame."""
ANSWER = struct.Struct("<c3sII")
"""Y (type, rows, columns; the values follow), M (out of memory) or N (cannot be decoded)."""


@final
class Decoder:
    """The parent's end of a child process that decompresses; made by `open_decoder`."""

    def __init__(self, process: "subprocess.Popen[bytes]", study: str) -> None:
        self._process = process
        self._study = study

    def decode(self, content: bytes | None, frame: int, shape: tuple[int, int]) -> Stored:
        """Stored values of one frame.

        Args:
            content: A whole DICOM file; None for the file of the previous call.
            frame: Index within the file.
            shape: Rows and columns that its header states.

        Raises:
            CtscribeError: ``E_BOMB`` when it takes more than 8 s of CPU time, 60 s or 3 GB.
            EOFError: When it cannot be decompressed, or to another shape.
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
        [sys.executable, "-P", "-m", "ctscribe.scan.dicom_decoder"],
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


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests in the child until there are no more."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    warnings.simplefilter("ignore")
    image = None
    while header := requests.read(REQUEST.size):
        num_bytes, frame = REQUEST.unpack(header)
        until_s = int(time.process_time()) + FRAME_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.RLIM_INFINITY))
        try:
            if num_bytes:
                image = pydicom.dcmread(BytesIO(requests.read(num_bytes)))
            assert image is not None
            pixels = pixel_array(image, index=frame)
            rows, columns = pixels.shape
            kind = pixels.dtype.newbyteorder("<").str.encode()
            answers.write(ANSWER.pack(b"Y", kind, rows, columns))
            answers.write(pixels.astype(kind.decode(), copy=False).tobytes())
        except MemoryError:
            answers.write(ANSWER.pack(b"M", b"", 0, 0))
        except Exception:  # decoders raise anything for a bad file
            answers.write(ANSWER.pack(b"N", b"", 0, 0))
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)
