"""What bad input must end in."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ctscribe.base.errors import CtscribeError


@contextmanager
def refusal(code: str, match: str | None = None) -> Iterator["pytest.ExceptionInfo[CtscribeError]"]:
    """The block must raise this code, its sentence matching a regular expression."""
    with pytest.raises(CtscribeError, match=match) as caught:
        yield caught
    assert caught.value.code == code
