"""Somebody else who holds a lock."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread


@contextmanager
def held(lock: AbstractContextManager[None]) -> Iterator[None]:
    """The lock is held by a thread, which is as foreign to it as another process."""
    entered, leave = Event(), Event()

    def hold() -> None:
        with lock:
            entered.set()
            leave.wait()

    thread = Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()
