"""Who may ask the server, how much may come and how slowly, and what is told when it goes wrong.

A page of another site must not reach a server on this machine through a browser: by a name of its
own that it makes point here (DNS rebinding), or by sending a form.
"""

import asyncio
import math
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, final
from urllib.parse import urlsplit

from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_STATUS = {"E_INTERNAL": 500, "E_MEMORY": 500, "E_QUEUE": 503, "E_UPLOAD": 413, "E_WRITE": 507}
_BAD_SCAN = 422
_PATIENCE_S, _LEAST_BYTES_PER_S = 30.0, 64 << 10
"""An upload may pause so long, and must come as fast on average."""


@final
class Guard:
    """Stands before the application.

    Args:
        app: What answers those who may ask.
        names: By which a client may call this machine, beside addresses.
        max_bytes: Longest upload.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str], max_bytes: int) -> None:
        self._app, self._names, self._max_bytes = app, names, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        headers = Headers(scope=scope)
        refused = self._why_not(scope["method"], headers)
        if refused is not None:
            await told_of(refused)(scope, receive, answer)
            return
        body = _Body(receive, self._max_bytes, headers)
        with suppress(Exception):  # the application has told of it, and raises it again
            await self._app(scope, body, answer)

    def _why_not(self, method: str, headers: Headers) -> HTTPException | None:
        host = headers.get("host", "")
        if not self._is_here(host):
            return HTTPException(
                400, "the Host of a request must be an address, localhost or --host, but is not"
            )
        origin = headers.get("origin")
        is_ours = origin is None or urlsplit(origin).netloc.lower() == host.lower()
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if method not in ("GET", "HEAD") and not (is_ours and not elsewhere):
            return HTTPException(
                403, "a form must be sent from the server's own page, but is of another site"
            )
        return None

    def _is_here(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ip_address(name)
        except ValueError:
            return False
        return True


@final
class _Body:
    """What a client sends, in pieces: not too much, and not too slowly."""

    def __init__(self, receive: Receive, max_bytes: int, headers: Headers) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self._stated = int(headers.get("content-length", "0"))
        self._num_bytes, self._is_whole = 0, False
        self._until = asyncio.get_running_loop().time() + _PATIENCE_S

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()  # waits until the client leaves
        if max(self._stated, self._num_bytes) > self._max_bytes:
            raise CtscribeError(
                "E_UPLOAD",
                f"an upload must have at most {self._max_bytes:,} bytes, but this one has more",
            )
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "an upload must go on, but this one stands still") from error
        num_bytes = len(message.get("body", b""))
        self._num_bytes += num_bytes
        self._until += num_bytes / _LEAST_BYTES_PER_S
        self._is_whole = not message.get("more_body", False)
        return message


def told_of(error: HTTPException | CtscribeError, retry_after_s: float = 0) -> JSONResponse:
    """An error as JSON, with its code, its sentence and the status of HTTP that fits.

    ``E_QUEUE`` also says after how many seconds to ask again.
    """
    if isinstance(error, CtscribeError):
        status = _STATUS.get(error.code, _BAD_SCAN)
        headers = {"retry-after": str(math.ceil(retry_after_s) or 1)} if status == 503 else {}
        return JSONResponse(error_as_json(error), status, headers)
    told = CtscribeError("E_REQUEST", str(error.detail))
    return JSONResponse(error_as_json(told), error.status_code, error.headers)


def error_as_json(error: CtscribeError) -> dict[str, Any]:
    """The code, the sentence, and what nothing that the server says may lack."""
    return {"code": error.code, "sentence": error.sentence, "use": RESEARCH_USE}
