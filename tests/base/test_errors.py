"""Every code that the source names is declared once, and the page about them is current."""

import pickle
import re
import runpy
from pathlib import Path

from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"\b[EW]_[A-Z0-9][A-Z0-9_]+\b")


def test_codes_in_use_are_the_declared_ones() -> None:
    sources = [path for path in (ROOT / "src").rglob("*.py") if path.name != "errors.py"]
    used = {code for path in sources for code in CODE.findall(path.read_text(encoding="utf-8"))}
    assert sorted(used - CODES.keys()) == [], "declare these in ctscribe.base.error_codes.CODES"
    assert sorted(CODES.keys() - used) == [], "nothing uses these any more"


def test_codes_are_in_order_and_say_something() -> None:
    assert list(CODES) == sorted(CODES)
    for code, told in CODES.items():
        assert told.meaning[0].isupper(), code
        assert told.meaning.endswith("."), code
        assert told.remedy.endswith("."), code


def test_the_page_is_current() -> None:
    made = runpy.run_path(str(ROOT / "docs/make_errors.py"))
    assert made["TARGET"].read_text(encoding="utf-8") == made["page"](), "run make docs"


def test_an_error_ends_with_the_remedy_of_its_code() -> None:
    error = CtscribeError("E_GAP", "scan-7 must have all slices, but lacks two")
    assert str(error) == (
        "scan-7 must have all slices, but lacks two; export it completely [E_GAP]"
    )
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.sentence) == (error.code, error.sentence)
