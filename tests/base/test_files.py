from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import atomic_write, read_json, sha256_of_file, sha256_of_json, write_json


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
