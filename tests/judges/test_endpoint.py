import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ctscribe.errors import CtscribeError
from ctscribe.judges.endpoint import Endpoint, EndpointError, require_local

Answer = Callable[[int, dict[str, Any]], tuple[int, bytes]]
"""Number of the request and its body → status and body of the answer."""


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A server on this machine; yields its address and what it was asked."""
    heard: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.path, body))
            status, content = answer(len(heard), body)
            with suppress(BrokenPipeError):  # who asked may have stopped waiting
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_question_goes_out_at_temperature_0(suffix: str) -> None:
    with serving(lambda *_: (200, completion("fine"))) as (url, heard):
        assert Endpoint(url + suffix, "m", pause_s=0.0).ask("be strict", "how?", 9) == "fine"
    [(path, body)] = heard
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be strict"},
            {"role": "user", "content": "how?"},
        ],
        "temperature": 0,
        "max_tokens": 9,
    }


def test_a_busy_server_is_asked_again() -> None:
    answers = {1: (503, b""), 2: (429, b""), 3: (200, completion("late"))}
    with serving(lambda number, _: answers[number]) as (url, heard):
        assert Endpoint(url, "m", pause_s=0.0).ask("", "", 9) == "late"
    assert len(heard) == 3


def test_tries_are_bounded() -> None:
    with (
        serving(lambda *_: (503, b"")) as (url, heard),
        pytest.raises(EndpointError, match="status 503 after 3 tries"),
    ):
        Endpoint(url, "m", pause_s=0.0).ask("", "", 9)
    assert len(heard) == 3


def test_silence_ends_at_the_timeout() -> None:
    release = threading.Event()

    def wait(*_: object) -> tuple[int, bytes]:
        release.wait(5)
        return 200, completion("too late")

    with serving(wait) as (url, _):
        try:
            with pytest.raises(EndpointError, match="TimeoutError after 3 tries"):
                Endpoint(url, "m", timeout_s=0.05, pause_s=0.0).ask("", "", 9)
        finally:
            release.set()


def test_nobody_there_is_told() -> None:
    with serving(lambda *_: (200, b"")) as (url, _):
        pass
    with pytest.raises(EndpointError, match="ConnectionRefusedError after 3 tries"):
        Endpoint(url, "m", pause_s=0.0).ask("", "", 9)


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (404, b"no such model", "status 404"),
        (302, b"", "status 302"),
        (200, b"<html>", "no chat completion"),
        (200, b"{}", "no chat completion"),
        (200, b'{"choices": []}', "no chat completion"),
        (200, completion(None), "no text"),
    ],
)
def test_other_answers_are_not_asked_for_again(status: int, content: bytes, told: str) -> None:
    with serving(lambda *_: (status, content)) as (url, heard):
        with pytest.raises(EndpointError, match=told):
            Endpoint(url, "m", pause_s=0.0).ask("", "", 9)
        assert len(heard) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost", "https://[::1]:9/v1", "http://127.8.8.8"]
)
def test_this_machine_is_accepted(url: str) -> None:
    require_local(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.0.4:8000",
        "https://example.org/v1",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@example.org",
        "http://localhost.example.org",
        "http://0.0.0.0:8000",
        "http://[::]:8000",
    ],
)
def test_other_machines_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(CtscribeError, match="patient data"):
        require_local(url)
    require_local(url, anywhere=True)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://a:b"]
)
def test_no_address_is_refused(url: str) -> None:
    for anywhere in (False, True):
        with pytest.raises(CtscribeError, match="must be an address"):
            require_local(url, anywhere=anywhere)
