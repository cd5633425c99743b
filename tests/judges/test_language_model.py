from pathlib import Path
from typing import Any

import pytest

from ctscribe.errors import CtscribeError
from ctscribe.judges import language_model
from ctscribe.judges.endpoint import Endpoint, EndpointError
from ctscribe.judges.language_model import Case, judge_reports, parse_score

CASES = [
    Case("s1", "p1", "A nodule.", "A nodule."),
    Case("s2", "p1", "Effusion.", "No effusion."),
    Case("s3", "p2", "Emphysema.", "broken"),
    Case("s4", "p3", "Normal.", "Normal."),
]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a model was asked that gives 1 for equal words, nonsense for broken ones, else 0.25."""
    asked: list[str] = []

    def ask(self: Endpoint, system: str, user: str, max_tokens: int) -> str:
        assert "JSON" in system
        asked.append(user)
        if "broken" in user:
            return "I cannot say."
        words = [part.split("<")[0] for part in user.split(">\n")[1:4:2]]
        return f'Well.\n{{"score": {1 if words[0] == words[1] else 0.25}}}'

    monkeypatch.setattr(Endpoint, "ask", ask)
    return asked


def judged(cases: list[Case], cache_dir: Path, model: str = "m") -> dict[str, Any]:
    return judge_reports(
        cases,
        Endpoint("http://127.0.0.1:1", model),
        cache_dir,
        resamples=200,
        seed=0,
        progress=lambda *_: None,
    )


def test_scores_means_and_failures_are_told(tmp_path: Path, heard: list[str]) -> None:
    found = judged(CASES, tmp_path)
    assert found["scores"] == {"s1": 1.0, "s2": 0.25, "s4": 1.0}
    assert found["failed"] == {"s3": "the answer has no score"}
    assert found["mean"]["value"] == pytest.approx(0.75)
    assert found["mean"]["low"] <= 0.75 <= found["mean"]["high"] <= 1
    assert found["mean"]["signature"].startswith("judge|m|prompt:")
    assert found["mean"]["signature"].endswith("|temperature:0|scans:3")
    assert len(heard) == 4


def test_a_second_run_asks_only_what_is_unknown(tmp_path: Path, heard: list[str]) -> None:
    first = judged(CASES[:2], tmp_path)
    path = tmp_path / "judged.jsonl"
    assert not any(word in path.read_text() for word in ("nodule", "ffusion"))
    path.write_text(path.read_text() + '{"key": "cut')  # as an interruption leaves it
    heard.clear()
    again = judged(CASES, tmp_path)
    assert {scan: again["scores"][scan] for scan in ("s1", "s2")} == first["scores"]
    assert len(heard) == 2  # s3 failed, s4 is new
    heard.clear()
    judged(CASES, tmp_path)
    assert len(heard) == 1  # the failed one
    judged(CASES[:1], tmp_path, model="another")
    assert len(heard) == 2


def test_no_score_at_all_is_an_error(tmp_path: Path, heard: list[str]) -> None:
    with pytest.raises(CtscribeError, match=r"none of 1 \(the answer has no score\)"):
        judged(CASES[2:3], tmp_path)
    with pytest.raises(CtscribeError, match="none to judge"):
        judged([], tmp_path)


def test_a_dead_endpoint_is_given_up(tmp_path: Path, heard: list[str]) -> None:
    broken = [Case(f"b{i}", "p", "x", f"broken {i}") for i in range(30)]
    known = judged(CASES[:1], tmp_path)
    found = judged([*broken, CASES[0]], tmp_path)
    assert len(heard) == 1 + 10
    assert found["scores"] == known["scores"]
    assert found["failed"]["b29"] == "not asked, because 10 in a row failed"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 0.4}', 0.4),
        ('{"score": 1}', 1.0),
        ('```json\n{"reason": "x", "score": 0}\n```', 0.0),
        ('first {"score": 0.1}, no: {"score": 0.9}', 0.9),
    ],
)
def test_scores_are_read(answer: str, score: float) -> None:
    assert parse_score(answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "0.5",
        '{"score": "0.5"}',
        '{"score": true}',
        '{"score": 7}',
        '{"score": -0.1}',
        '{"score": NaN}',
        '{"score": null}',
        '{"score": 0.5',
        "{'score': 0.5}",
        '{"note": 1}',
    ],
)
def test_anything_else_is_no_score(answer: str) -> None:
    with pytest.raises(EndpointError):
        parse_score(answer)


def test_the_prompt_asks_for_what_the_parser_reads() -> None:
    assert '{"score":' in language_model._SYSTEM
