"""A language model behind an OpenAI-compatible endpoint on this machine.

Reports are patient data, so another machine is refused unless it is asked for by name. Redirects
and proxies are not followed: what is sent goes to the address given and nowhere else.
"""

import http.client
import ipaddress
import json
import time
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import SplitResult, urlsplit

from ctscribe.errors import CtscribeError

_NUM_TRIES = 3
_MAX_ANSWER_BYTES = 1 << 20
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


@final
class EndpointError(Exception):
    """The endpoint did not answer one request; the sentence says why."""


@final
@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and whom.

    Attributes:
        url: E.g. ``http://127.0.0.1:8000`` or ``…/v1``.
        model: Name the server knows the model by.
        timeout_s: Longest wait for one answer, in seconds.
        pause_s: Wait before the second try, in seconds; doubled before each further one.
    """

    url: str
    model: str
    timeout_s: float = 120.0
    pause_s: float = 1.0

    def ask(self, system: str, user: str, max_tokens: int) -> str:
        """The model's answer at temperature 0.

        Busy and broken answers, silence and lost connections are tried three times.

        Raises:
            EndpointError: No answer, or none that is a chat completion.
        """
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = json.dumps(
            {
                "model": self.model,
                "messages": messages,
                "temperature": 0,
                "max_tokens": max_tokens,
            }
        )
        problem = ""
        for number in range(_NUM_TRIES):
            if number:
                time.sleep(self.pause_s * 2 ** (number - 1))
            try:
                status, answer = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__} after {number + 1} tries"
                continue
            if status in _PASSING:
                problem = f"status {status} after {number + 1} tries"
                continue
            if status != 200:
                raise EndpointError(f"status {status}")
            return _content(answer)
        raise EndpointError(problem)

    def _post(self, body: str) -> tuple[int, bytes]:
        place = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(place.hostname or "", place.port, timeout=self.timeout_s)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", _path(place), body.encode(), headers)
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


def require_local(url: str, *, anywhere: bool = False) -> None:
    """Refuses an address that is none, or that leads off this machine.

    Args:
        url: To be used for an `Endpoint`.
        anywhere: Whether other machines are allowed.

    Raises:
        CtscribeError: ``E_ENDPOINT``.
    """
    try:
        place = urlsplit(url)
        host, _ = place.hostname, place.port
    except ValueError:
        host = None
    if not host or place.scheme not in ("http", "https"):
        raise CtscribeError(
            "E_ENDPOINT",
            f"the endpoint must be an address such as http://127.0.0.1:8000, but is {url[:80]!r}; "
            "correct it",
        )
    if not anywhere and not _is_loopback(host):
        raise CtscribeError(
            "E_ENDPOINT",
            f"the endpoint must be on this machine because reports are patient data, but {host} "
            "is another; serve the model on 127.0.0.1, or pass --allow-remote if that is lawful",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _path(place: SplitResult) -> str:
    base = place.path.rstrip("/")
    return f"{base}/chat/completions" if base.endswith("/v1") else f"{base}/v1/chat/completions"


def _content(answer: bytes) -> str:
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise EndpointError("the answer is no chat completion") from error
    if not isinstance(content, str):
        raise EndpointError("the answer has no text")
    return content
