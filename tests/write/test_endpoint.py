"""A client asked to reach servers that are elsewhere, slow, broken or gone."""

import json
import socket
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler

import pytest

from ctscribe.write.endpoint import Endpoint, Reply, wait_of
from tests.chat_server import Answer, answer, serving, written
from tests.refusals import refusal


def ask(url: str, timeout_s: float = 5.0) -> Reply:
    return Endpoint(url, timeout_s, tries=2).write("m", [], 9)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8000/v1",
        "https://api.openai.com/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://0.0.0.0:8000/v1",
        "http://[2001:db8::1]/v1",
        "http://workstation:8000/v1",
    ],
)
def test_another_machine_is_refused_until_it_is_allowed(url: str) -> None:
    with refusal("E_REMOTE", "--allow-remote"):
        Endpoint(url)
    assert Endpoint(url, allow_remote=True).is_remote


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_leave(host: str) -> None:
    assert not Endpoint(f"http://{host}:8000/v1").is_remote


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://", "http://127.0.0.1:99999/v1"),
        *("http://u:secret@127.0.0.1/v1", "http://127.0.0.1@example.com/v1", "http://[::1/v1"),
        *("http://127.0.0.1/v1?key=secret", ""),
    ],
)
def test_what_is_no_address_is_told_without_its_secrets(url: str) -> None:
    with refusal("E_OPTION", "--endpoint must be like") as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


def test_no_proxy_and_no_redirection_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(written("seen")) as (elsewhere, overheard):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.removesuffix("/v1"))
        for status in (301, 302, 307, 308):
            moved = answer(status, b"", Location=f"{elsewhere}/chat/completions")
            with serving(moved) as (url, asked), refusal("E_ENDPOINT", str(status)):
                ask(url)
            assert len(asked) == 1
        assert not overheard


def test_the_question_is_plain_and_the_key_is_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(written(" A nodule.\n", "length")) as (url, asked):
        assert ask(f"{url}/") == Reply("A nodule.", finished=False)
        assert asked[0].startswith("POST /v1/chat/completions HTTP/1.1\n")
        question = {"model": "m", "messages": [], "temperature": 0, "max_tokens": 9}
        assert json.loads(asked[0].splitlines()[-1]) == question | {"stream": False}
        assert "Authorization" not in asked[0]
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        ask(url)
        assert "Authorization: Bearer key" in asked[1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again_to_a_limit(status: int) -> None:
    with serving(answer(status, {}), written("ok")) as (url, asked):
        assert ask(url).text == "ok"
        assert len(asked) == 2
    with serving(answer(status, {"error": "overloaded"})) as (url, asked):
        with refusal("E_ENDPOINT", f"answers {status}: .*overloaded.*, 2 times"):
            ask(url)
        assert len(asked) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_what_stays_so_is_not_asked_again(status: int) -> None:
    with serving(answer(status, b"\x1b[31mno\n such model")) as (url, asked):
        with refusal("E_ENDPOINT", f"answers {status}: .*no such model") as caught:
            ask(url)
        assert len(asked) == 1
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "wait_s"), [("7", 7.0), ("soon", None), ("-1", None), ("9" * 400, None), (None, None)]
)
def test_it_waits_as_long_as_the_server_says(said: str | None, wait_s: float | None) -> None:
    headers = Message()
    if said is not None:
        headers["Retry-After"] = said
    assert wait_of(headers) == wait_s


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html>", b"[]", b"\xff", b'{"choices": []}', b'{"choices": [{"message": null}]}'),
        *(b'{"choices": 3}', b'{"choices": [{"message": {"content": [1]}}]}', b'{"object": "x"}'),
        b'{"choices": [{"message": {"content": null}}]}',  # no report, not an empty one
        b"[" * 100_000,
    ],
)
def test_other_answers_are_one_sentence(content: bytes) -> None:
    with serving(answer(200, content)) as (url, _), refusal("E_ENDPOINT", "must answer as OpenAI"):
        ask(url)


def test_what_the_server_does_not_say_is_not_known() -> None:
    bare = answer(200, {"choices": [{"message": {"content": ""}}]})
    odd = written("a", "content_filter", read="many", ids=["a"])
    with serving(bare, odd, written("a", read=7, ids=[1, 2])) as (url, _):
        assert ask(url) == Reply("", None)
        assert ask(url) == Reply("a", finished=False)
        assert ask(url) == Reply("a", True, 7, (1, 2))


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.close_connection = True


@pytest.mark.parametrize("fault", [hang, trickle])
def test_who_is_too_slow_is_asked_again(fault: Answer) -> None:
    with serving(fault, written("ok")) as (url, asked):
        assert ask(url, timeout_s=0.5).text == "ok"
        assert len(asked) == 2


def test_who_breaks_off_is_asked_again() -> None:
    with serving(break_off, written("ok")) as (url, asked):
        assert ask(url).text == "ok"
        assert len(asked) == 2


def test_an_answer_without_end_is_cut_off() -> None:
    with serving(answer(200, b" " * (17 << 20))) as (url, _), refusal("E_ENDPOINT", "bytes"):
        ask(url)


def test_nobody_at_the_address_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with refusal("E_ENDPOINT", "could not be asked: .*refused, 2 times"):
            ask(f"http://127.0.0.1:{free.getsockname()[1]}/v1")


def test_closing_ends_what_is_asked() -> None:
    with serving(lambda handler: time.sleep(3)) as (url, asked):
        endpoint = Endpoint(url)
        caught: list[Exception] = []

        def wait() -> None:
            try:
                endpoint.write("m", [], 9)
            except Exception as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        while not asked:
            time.sleep(0.01)
        endpoint.close()
        thread.join()
        assert len(caught) == len(asked) == 1


def test_the_only_model_need_not_be_named() -> None:
    one = {"data": [{"id": "ours", "object": "model"}]}
    two = {"data": [{"id": "ours"}, {"id": "theirs"}]}
    with serving(answer(200, one), answer(200, two), answer(200, {"data": []})) as (url, asked):
        assert Endpoint(url).only_model() == "ours"
        assert asked[0].startswith("GET /v1/models ")
        with refusal("E_OPTION", "tells ours, theirs"):
            Endpoint(url).only_model()
        with refusal("E_OPTION", "tells no model"):
            Endpoint(url).only_model()
