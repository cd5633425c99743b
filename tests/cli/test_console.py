from itertools import count

import pytest

from ctscribe.cli import console
from ctscribe.cli.console import stage, stage_with_failures, stages


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that has gone on by two seconds each time it is read."""
    ticks = count(0.0, 2.0)
    monkeypatch.setattr("ctscribe.cli.console.time.monotonic", lambda: next(ticks))


def test_rate_and_time_left_count_from_what_was_there(
    seconds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage("Preparing volumes") as progress:
        for done in (900, 910, 1000):
            progress(done, 1000)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "Preparing volumes …",
        "  Preparing volumes: 900/1000",
        "  Preparing volumes: 1000/1000, 25.0 per second, 0 s left",
    ]


def test_failures_are_counted_by_code(seconds: None, capsys: pytest.CaptureFixture[str]) -> None:
    with stage_with_failures("Preparing volumes") as (progress, failed):
        progress(0, 4000)
        for code in ("E_TRUNCATED", "E_NAN", "E_TRUNCATED"):
            failed(code)
        progress(400, 4000)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "  Preparing volumes: 400/4000, 200.0 per second, 18 s left, "
        "3 skipped: E_NAN 1, E_TRUNCATED 2"
    )


def test_what_was_measured_comes_before_rate_and_time(
    seconds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with stages(("Training", "updates")) as (progress,):
        progress(0, 4)
        progress.measured("loss 2.310, learning rate 1.0e-04")
        progress(1, 4)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "  Training: 1/4, loss 2.310, learning rate 1.0e-04, 30.0 per minute, 6 s left"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60.0, "1:00"), (303.0, "5:03"), (7500.0, "2:05:00")],
)
def test_durations(number: float, text: str) -> None:
    assert console._duration(number) == text


def test_slow_stages_tell_the_rate_per_minute(
    seconds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage("Training") as progress:
        progress(0, 4)
        progress(1, 4)
    assert "1/4, 30.0 per minute, 6 s left" in capsys.readouterr().err


def test_a_terminal_obeys_no_text_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (console.say, console.complain, console.print_text):
        tell("a\x1b[2J[red]\u202e\ud800b")
    told = capsys.readouterr()
    assert (told.out + told.err).count(r"a\x1b[2J[red]\u202e\ud800b") == 3
    console.complain("one\nctscribe: two")
    assert capsys.readouterr().err.count("\n") == 1
