"""The server from its first to its last moment: its address, its folder, and signals.

After Ctrl-C or SIGTERM the draft that is being written is finished and those that wait are told;
meanwhile drafts can still be fetched. A second Ctrl-C ends it at once.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import final

import uvicorn

from ctscribe.base.errors import CtscribeError
from ctscribe.base.hosts import is_this_machine
from ctscribe.base.locks import one_writer
from ctscribe.show.serving.app import make_app
from ctscribe.show.serving.guard import Guard
from ctscribe.show.serving.listed import ListedScans
from ctscribe.show.serving.queue import DraftQueue, Explain, WriteDraft

_PREFIX = "ctscribe-serve-"
_LEFT_ALONE_S = 60
"""A folder that is so new may be that of a server that is just starting."""
_LAST_ANSWERS_S = 10
_LOGGERS = ("asyncio", "python_multipart.multipart", "uvicorn.error")
"""Whose messages may repeat what a client sent."""


@final
@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens and how much it takes.

    Attributes:
        host: Address or name of this machine.
        port: 0 takes a free one.
        scans: Folder of scans that may be named; None for none.
        num_waiting: Drafts that may wait beside the one that is being written.
        max_upload_bytes: Longest upload.
    """

    host: str
    port: int
    scans: Path | None
    num_waiting: int
    max_upload_bytes: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_this_machine(self.host)


def serve(
    write: WriteDraft, explain: Explain, options: ServerOptions, tell: Callable[[str], None]
) -> None:
    """Serves until a signal ends it.

    Args:
        write: Writes a draft; called in one thread.
        explain: One sentence for any error.
        options: Where, and how much.
        tell: Takes sentences about the server, which name no scan.

    Raises:
        CtscribeError: ``E_SERVE`` where the address cannot be taken.
    """
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with _listening(options) as listener, _own_folder() as folder:
        queue = DraftQueue(write, explain, folder, options.num_waiting, tell)
        app = make_app(queue, ListedScans(options.scans), explain)
        names = frozenset({"localhost", options.host.lower()})
        server = _Server(_config(Guard(app, names, options.max_upload_bytes)), queue)
        tell(f"Serving on {_address(listener)}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):  # the signal that ended it, given on by uvicorn
            server.run([listener])
    if not queue.is_idle:
        os._exit(128 + signal.SIGINT)  # a thread at work cannot be ended otherwise
    tell("Ended")


@final
class _Server(uvicorn.Server):
    """Finishes the draft that is being written before it stops to listen."""

    def __init__(self, config: uvicorn.Config, queue: DraftQueue) -> None:
        super().__init__(config)
        self._queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._queue.close()
        while not (self._queue.is_idle or self.force_exit):
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def _config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # addresses hold the ids of drafts
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )


@contextmanager
def _listening(options: ServerOptions) -> Iterator[socket.socket]:
    """Takes the address.

    Raises:
        CtscribeError: ``E_SERVE``.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise CtscribeError(
            "E_SERVE",
            f"{options.host}:{options.port} must be free to listen on, but {error.strerror}",
        ) from error
    with listener:
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder among the temporary files, gone at the end; what killed servers left goes first."""
    for left in Path(gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, CtscribeError):
            state = left.lstat()
            is_own = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
            if is_own and time.time() - state.st_mtime > _LEFT_ALONE_S:
                with one_writer(left):
                    shutil.rmtree(left)
    with (
        TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        one_writer(Path(name)),
    ):
        yield Path(name)
