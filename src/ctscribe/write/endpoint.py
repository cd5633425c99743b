"""Client for OpenAI's chat-completions protocol, with limits on time, size and destination.

Requests go only to the address that was given: no proxy is used and no redirect is followed. An
address on another machine is refused unless it is allowed.
"""

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR
from types import MappingProxyType
from typing import Any, NoReturn, final
from urllib.parse import SplitResult, urlsplit

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import UNPARSABLE, brief, parse_json
from ctscribe.base.hosts import is_this_machine
from ctscribe.base.outside_text import plain_text

KEY = "OPENAI_API_KEY"
"""Environment variable with the API key; no key is sent where it is not set."""
_TRIES = 6
_CONNECT_TIMEOUT_S = 10.0
_LONGEST_WAIT_S = 60.0
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which a request is repeated."""
_MOST_BYTES = 16 << 20
"""Largest answer that is read; the longest report has a thousandth."""
_PIECE = 1 << 16


@final
@dataclass(frozen=True)
class Reply:
    """A server's answer."""

    text: str
    finished: bool | None
    """False where the text was cut off. This and the next are None where the server omits it."""
    num_prompt_tokens: int | None = None
    prompt_ids: tuple[int, ...] | None = None
    """Token ids of the prompt that the server built."""


@final
class _PassingError(Exception):
    """A failure that may not occur again, so that the request is repeated."""

    def __init__(self, fault: str, wait_s: float | None = None) -> None:
        super().__init__(fault)
        self.wait_s = wait_s


@final
@dataclass(frozen=True)
class Endpoint:
    """A server; any number of threads may use it at once.

    Args:
        url: With the path before ``/chat/completions``, such as ``http://127.0.0.1:8000/v1``.
        timeout_s: Longest time for one request, from sending it to the last byte of the answer.
        allow_remote: Whether the server may be on another machine.

    Raises:
        CtscribeError: ``E_OPTION`` for a malformed address, ``E_REMOTE``.
    """

    url: str
    timeout_s: float = 600.0
    allow_remote: bool = False
    tries: int = _TRIES
    """Attempts per request; the waits between them double, from one second on."""
    _open: set[HTTPConnection] = field(default_factory=set, init=False, repr=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def __post_init__(self) -> None:
        host = self._address.hostname or ""
        if not self.allow_remote and not is_this_machine(host):
            raise CtscribeError(
                "E_REMOTE",
                f"scans may leave this machine only where --allow-remote is given, but it is not, "
                f"and the endpoint is on {plain_text(host)[:80]}",
            )

    @property
    def is_remote(self) -> bool:
        """Whether requests leave this machine."""
        return not is_this_machine(self._address.hostname or "")

    @property
    def _address(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError as error:
            self._refuse_url(brief(error))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            self._refuse_url("it has no http:// or https:// or no host")
        if parts.username or parts.password or parts.query or parts.fragment:
            self._refuse_url(f"it holds more than a host, a port and a path (a key goes in {KEY})")
        return parts

    def _refuse_url(self, found: str) -> NoReturn:
        raise CtscribeError(
            "E_OPTION", f"--endpoint must be like http://127.0.0.1:8000/v1, but {found}"
        )

    def only_model(self) -> str:
        """The name of the only model that is served.

        Raises:
            CtscribeError: ``E_OPTION`` where there are others or the server tells none;
                ``E_ENDPOINT``.
        """
        rows = self._ask("GET", "models").get("data")
        listed = rows if isinstance(rows, list) else []
        names = [str(row["id"]) for row in listed if isinstance(row, dict) and row.get("id")]
        if len(names) != 1:
            some = ", ".join(plain_text(name)[:80] for name in names[:5])
            raise CtscribeError(
                "E_OPTION",
                f"--model must name what the server shall write with, but is not given, and the "
                f"server tells {some or 'no model'}",
            )
        return names[0]

    def write(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int,
        also: Mapping[str, Any] = MappingProxyType({}),
    ) -> Reply:
        """Requests one answer at temperature 0; ``also`` are fields that only some servers know.

        Raises:
            CtscribeError: ``E_ENDPOINT`` when the server refuses, gives a malformed answer, or does
                not answer in any attempt.
        """
        question = {
            "model": model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": False,
            **also,
        }
        return _reply(self._ask("POST", "chat/completions", question))

    def close(self) -> None:
        """Aborts all requests in progress, in any thread."""
        self._closed.set()
        for connection in [*self._open]:
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(SHUT_RDWR)

    def _ask(self, method: str, path: str, question: object = None) -> dict[str, Any]:
        body = None if question is None else json.dumps(question).encode()
        fault = "it was not asked"
        for number in range(self.tries):
            if self._closed.is_set():
                break
            try:
                return self._once(method, path, body)
            except _PassingError as error:
                fault = str(error)
                wait_s = error.wait_s or 2.0**number
            if number + 1 == self.tries or self._closed.wait(min(wait_s, _LONGEST_WAIT_S)):
                break
        raise _fault(f"{fault}, {self.tries} times")

    def _once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        address = self._address
        kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
        connection = kind(address.hostname or "", address.port, timeout=_CONNECT_TIMEOUT_S)
        self._open.add(connection)
        try:
            connection.connect()
            connection.sock.settimeout(self.timeout_s)
            connection.request(method, f"{address.path.rstrip('/')}/{path}", body, _headers())
            return _answer(connection, time.monotonic() + self.timeout_s)
        except TimeoutError as error:
            raise _PassingError("it did not answer in time") from error
        except (OSError, HTTPException) as error:
            raise _PassingError(f"it could not be asked: {brief(error)}") from error
        finally:
            self._open.discard(connection)
            connection.close()


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def _answer(connection: HTTPConnection, until: float) -> dict[str, Any]:
    """Reads and parses the answer to a request."""
    response = connection.getresponse()
    content = b""
    while piece := response.read1(_PIECE):
        content += piece
        if len(content) > _MOST_BYTES:
            raise _fault(f"it answers with more than {_MOST_BYTES:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError
    if response.length:
        raise ConnectionError("its answer breaks off")
    if response.status in _TRY_AGAIN:
        raise _PassingError(_told(response.status, content), wait_of(response.headers))
    if response.status != 200:
        raise _fault(_told(response.status, content))
    try:
        value = parse_json(content.decode())
    except UNPARSABLE as error:
        raise _fault(f"it answers no JSON: {brief(error)}") from error
    if not isinstance(value, dict):
        raise _fault("it answers no JSON object")
    return value


def _told(status: int, content: bytes) -> str:
    said = brief(ValueError(plain_text(content[:1000].decode(errors="replace"))))
    return f"it answers {status}: {said}"


def wait_of(headers: Message) -> float | None:
    """Seconds of the ``Retry-After`` header; None without one."""
    after = str(headers.get("Retry-After", ""))
    return float(after) if after.isdecimal() and len(after) < 6 else None


def _fault(found: str) -> CtscribeError:
    return CtscribeError(
        "E_ENDPOINT", f"the server must answer as OpenAI's chat completions do, but {found}"
    )


def _reply(value: Mapping[str, Any]) -> Reply:
    try:
        choice = value["choices"][0]
        text, ended = choice["message"].get("content"), choice.get("finish_reason")
        num_tokens = (value.get("usage") or {}).get("prompt_tokens")
        ids = choice.get("prompt_token_ids") or value.get("prompt_token_ids")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _fault("it answers JSON of another kind") from error
    if not isinstance(text, str):
        raise _fault("the text of its answer is none")
    ids = ids if isinstance(ids, list) and all(isinstance(each, int) for each in ids) else None
    return Reply(
        text.strip(),
        None if ended is None else ended == "stop",
        num_tokens if isinstance(num_tokens, int) else None,
        None if ids is None else tuple(ids),
    )
