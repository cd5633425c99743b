import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import (
    file_name,
    is_file_name,
    named_path,
    plain_text,
    printable,
    without_placeholder,
    without_special_tokens,
)

HOSTILE = "GE\x1b[31m\x07\x9b2J\u2028Medical\u202e\ud800"


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", "-", "--", "—", "...", "?", "0", "nan", "NaN", "<NA>", "N/A", "n.a.", "#N/A"),
        *("none", "None.", "NULL", "Not given", "not given.", " NOT GIVEN. ", "Not available"),
        *("not provided", "No report.", "unknown", "Findings: N/A\nImpression: Not given."),
    ],
)
def test_what_says_that_there_is_no_report_is_none(text: str) -> None:
    assert without_placeholder(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("No findings.", "None of the findings is acute.", "Normal.", "Nodule", "No nodule."),
        *("Nan Hua sign.", "Emphysema: none.", "Акутно нет.", "未见异常", "- Nodule.", "x" * 500),
    ],
)
def test_reports_stand(text: str) -> None:
    assert without_placeholder(text) == text


@given(st.text())
def test_what_is_printed_obeys_nothing(text: str) -> None:
    shown = printable(text + HOSTILE)
    assert shown.encode("utf-8")
    others = {sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")}
    assert others <= {"\n", "\t"}
    assert printable(shown) == shown


def test_errors_are_printable() -> None:
    assert str(CtscribeError("E_MISSING", f"{HOSTILE} must exist")).startswith(
        r"GE\x1b[31m\x07\x9b2J\u2028Medical\u202e\ud800 must exist;"
    )


def test_what_is_kept_is_plain() -> None:
    assert plain_text(f" {HOSTILE}\x85 x") == "GE 2J Medical x"
    assert plain_text("Müller 王 ‏") == "Müller 王 ‏"


@pytest.mark.parametrize(
    ("name", "fit"),
    [("王小明", "王小明"), ("Иванов 1", "Иванов-1"), ("o\u0308", "ö"), ("../x\0", "x"), ("=?", "")],
)
def test_names_of_any_script_become_files(name: str, fit: str) -> None:
    assert file_name(name) == fit
    assert is_file_name(fit) == (fit != "")
    assert len(file_name("王" * 300).encode()) <= 100


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0", "a\x1b", "x" * 201])
def test_what_leads_elsewhere_is_no_file_name(name: str) -> None:
    assert not is_file_name(name)


def test_paths_stay_inside_unless_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "ö.nii")).touch()
    found = named_path(tmp_path, "./a/../ö.nii")
    assert found is not None
    assert found.exists()
    for path in ("../x", "/etc/passwd", "a/../..", "."):
        assert named_path(tmp_path, path) is None
        assert named_path(tmp_path, path, allow_outside=True) is not None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<s> No nodule. </s>", "No nodule."),
        ("No nodule.</s><pad><pad>", "No nodule."),
        ("<|begin_of_text|>No nodule.<|eot_id|>", "No nodule."),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nNo nodule.<|eot_id|>", "No nodule."),
        ("<|im_start|>assistant\nNo nodule.<|im_end|>\n<|endoftext|>", "No nodule."),
        ("<|vision_start|><|image_pad|><|vision_end|>No nodule.", "No nodule."),
        ("<bos><start_of_turn>model\nNo nodule.<end_of_turn>", "No nodule."),
        ("[CLS] No nodule. [SEP] [PAD] [PAD]", "No nodule."),
        ("[INST] No nodule. [/INST]", "No nodule."),
        ("<｜begin▁of▁sentence｜>No nodule.<｜end▁of▁sentence｜>", "No nodule."),
        ("No <unk> nodule.</s>No mass.", "No nodule.No mass."),
        ("</s>", ""),
        ("<pad> <pad> ", ""),
        # As the challenge deletes it: alone.
        ("No nodule. <|eot_id|>", "No nodule. "),
        ("No<|eot_id|>nodule.", "Nonodule."),
    ],
)
def test_special_tokens_go_and_the_words_stay(text: str, kept: str) -> None:
    assert without_special_tokens(text) == kept


@pytest.mark.parametrize(
    "text",
    [" Nodule < 5 mm, > 3 mm. ", "a <b> c", "[1] Nodule [see 2].", "5 <| 7", "  ", "", "<s", "s>"],
)
def test_other_brackets_stand(text: str) -> None:
    assert without_special_tokens(text) == text


@given(st.text(alphabet="<>|/[]s ab_", max_size=60))
def test_what_is_left_holds_no_special_token_within(text: str) -> None:
    kept = without_special_tokens(text)
    assert len(kept) <= len(text)
    assert not set(kept) - set(text)
