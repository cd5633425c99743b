import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    atomic_write,
    changed_file,
    measure_files,
    read_any_json,
    read_json,
    read_text,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_plain_json,
)
from tests.damage import HOSTILE, flip_bit
from tests.refusals import refusal


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert read_json(path) == {"kept": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_target_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CtscribeError, match=r"must be writable.*E_WRITE"):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize(("text", "code"), [(None, "E_MISSING"), ("{", "E_JSON")])
def test_unreadable_json_is_named(tmp_path: Path, text: str | None, code: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CtscribeError, match=rf"a\.json.*{code}"):
        read_json(path)


def test_hashes_know_content_and_not_order(tmp_path: Path) -> None:
    assert sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    (tmp_path / "x").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of_file(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_what_was_written_is_read_however_it_is_spaced(tmp_path: Path) -> None:
    value = {"a": (1, 2.5e-7), "b": {"text": "é\u2028"}, "c": None}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {**value, "a": [1, 2.5e-7]}
    spaced = json.dumps(json.loads((tmp_path / "a.json").read_text()), indent=7)
    (tmp_path / "a.json").write_text(f"\ufeff{spaced}")
    assert read_json(tmp_path / "a.json") == {**value, "a": [1, 2.5e-7]}


def test_changed_content_is_not_believed(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", {"bleu_4": 0.25})
    edited = (tmp_path / "scores.json").read_text().replace("0.25", "0.75")
    (tmp_path / "scores.json").write_text(edited)
    with refusal("E_JSON", "does not have its own checksum"):
        read_json(tmp_path / "scores.json")


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.95])
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path: Path, at: float) -> None:
    value = {"weights": "ab12", "loss": 2.27, "step": 3}
    write_json(tmp_path / "a.json", value)
    flip_bit(tmp_path / "a.json", at)
    with suppress(CtscribeError):
        assert value.items() <= read_json(tmp_path / "a.json").items()


def test_what_others_write_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    write_plain_json(tmp_path / "config.json", {"hidden_size": 8})
    assert "crc32" not in (tmp_path / "config.json").read_text()
    assert read_json(tmp_path / "config.json") == {"hidden_size": 8}


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_content_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with refusal("E_JSON") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 600


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"loss": NaN}')
    with refusal("E_JSON", "NaN is no number"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": float("nan")})


@pytest.mark.parametrize("read", [read_text, read_json, read_any_json, sha256_of_file])
def test_what_is_no_file_is_one_sentence(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_text("{}")
    with refusal("E_READ"):
        read(tmp_path)
    for absent in (tmp_path / "none", tmp_path / "file" / "below"):
        with refusal("E_MISSING", "must exist"):
            read(absent)
    with refusal("E_READ", "name too long"):
        read(tmp_path / ("x" * 5000))


def test_devices_and_huge_files_are_not_read(tmp_path: Path) -> None:
    with refusal("E_READ", "it is a device"):
        read_text(Path("/dev/zero"))
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    for read in (read_text, read_json):
        with refusal("E_READ", r"1,099,511,627,776 bytes are more than"):
            read(tmp_path / "huge.json")


def test_files_are_compared_with_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b", "marker"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    files = measure_files(tmp_path, "marker")
    assert files.keys() == {"a", "deep/b"}
    assert files["a"][0] == 1000
    (tmp_path / "added").write_bytes(b"")
    assert changed_file(tmp_path, files) is None
    flip_bit(tmp_path / "deep" / "b")
    assert changed_file(tmp_path, files) == "deep/b"
    (tmp_path / "a").unlink()
    assert changed_file(tmp_path, files) == "a"
