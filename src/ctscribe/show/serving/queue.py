"""Drafts that are asked for: written one after another, a bounded number waiting, the latest kept.

In: scans on disk. Out: the files of each draft by name, or the error that there is instead.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from threading import BoundedSemaphore
from typing import final

from ctscribe.base.errors import CtscribeError

KEPT = 32
"""Drafts that can still be fetched; when another is written the oldest is removed."""

WriteDraft = Callable[[Path, str | None, Path], Iterable[Path]]
"""Takes where a scan lies, how its draft shall call it, and a folder; gives the files that it wrote
there, or raises what is wrong with the scan."""
Explain = Callable[[Exception], CtscribeError]
"""One sentence for any error."""


@final
@dataclass(eq=False)
class Request:
    """A draft that is asked for; its id cannot be guessed.

    Attributes:
        folder: Its own; holds the upload until it is read, then the draft's files.
        files: Of the draft by name, once it is written; None while the scan is still on its way.
    """

    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    files: Future[dict[str, Path]] | None = None


@final
class DraftQueue:
    """One thread that writes, requests that wait for it, and drafts that were written.

    Args:
        write: Called in that thread alone.
        explain: What is told of an error.
        folder: For uploads and drafts.
        num_waiting: Requests that may wait beside the one that is being written.
        tell: Takes a sentence per draft, without names.
    """

    def __init__(
        self,
        write: WriteDraft,
        explain: Explain,
        folder: Path,
        num_waiting: int,
        tell: Callable[[str], None],
    ) -> None:
        self._write, self._explain, self._folder, self._tell = write, explain, folder, tell
        self._places = BoundedSemaphore(num_waiting + 1)
        self._pool = ThreadPoolExecutor(1, "drafts")
        self._requests: dict[str, Request] = {}
        self._num_begun = 0
        self.is_closed = False
        self.seconds_per_draft = 10.0
        """How long the last one took; before the first, a guess."""

    @contextmanager
    def place(self) -> Iterator[Request]:
        """Holds a place while a scan arrives, until `submit` or the end of the block.

        Raises:
            CtscribeError: ``E_QUEUE`` when all are taken or the server is ending.
        """
        if self.is_closed:
            raise _ending()
        if not self._places.acquire(blocking=False):
            raise CtscribeError(
                "E_QUEUE", "a draft must have a place in the queue, but all places are taken"
            )
        request = Request(Path(mkdtemp(dir=self._folder)))
        try:
            yield request
        finally:
            if request.files is None:
                shutil.rmtree(request.folder, ignore_errors=True)
                self._places.release()

    def submit(self, request: Request, source: Path, name: str | None) -> None:
        """Puts the scan of a request that holds a place into the queue.

        Raises:
            CtscribeError: ``E_QUEUE`` when the server is ending.
        """
        if self.is_closed:
            raise _ending()
        self._num_begun += 1
        number = self._num_begun
        request.files = self._pool.submit(self._make, number, request.folder, source, name)
        request.files.add_done_callback(lambda _: self._places.release())
        self._requests[request.id] = request
        self._forget()

    def find(self, request_id: str) -> Request | None:
        """The request of this id, unless it was never made or is forgotten."""
        return self._requests.get(request_id)

    def num_ahead(self, request: Request) -> int:
        """Drafts that are written before this one."""
        before = 0
        for other in self._requests.values():
            if other is request:
                break
            before += not _is_done(other)
        return before

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written or waits for it."""
        return all(_is_done(request) for request in self._requests.values())

    def close(self) -> None:
        """Lets the draft that is being written be finished, and sends away those that wait."""
        self.is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, number: int, folder: Path, source: Path, name: str | None) -> dict[str, Path]:
        begun = time.monotonic()
        try:
            files = {path.name: path for path in self._write(source, name, folder)}
        except Exception as error:
            told = self._explain(error)
            self._tell(f"draft {number}: refused, {told.code}")
            raise told from None
        finally:
            self.seconds_per_draft = time.monotonic() - begun
            if source.parent == folder:
                source.unlink()
        self._tell(f"draft {number}: written in {self.seconds_per_draft:.1f} s")
        return files

    def _forget(self) -> None:
        done = [request for request in self._requests.values() if _is_done(request)]
        for request in done[: max(0, len(done) - KEPT)]:
            del self._requests[request.id]
            shutil.rmtree(request.folder, ignore_errors=True)


def _is_done(request: Request) -> bool:
    return request.files is not None and request.files.done()


def _ending() -> CtscribeError:
    return CtscribeError("E_QUEUE", "a draft must be asked for while the server runs, but it ends")


def files_of(request: Request) -> dict[str, Path]:
    """The files of a draft that is done.

    Raises:
        CtscribeError: What is wrong with its scan, or ``E_QUEUE`` where the server sent it away.
    """
    assert request.files is not None  # it was submitted
    if request.files.cancelled():
        raise _ending()
    return request.files.result()
