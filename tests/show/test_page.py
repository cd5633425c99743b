import pytest
from jinja2 import UndefinedError

from ctscribe.show.page import png_uri, render


def test_a_forgotten_value_is_an_error_not_a_gap() -> None:
    with pytest.raises(UndefinedError, match="tables"):
        render("scoreboard.html", title="t", facts=())


def test_a_png_becomes_a_data_uri() -> None:
    assert png_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
