import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.show.page import printable, signed_mm


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("6 × 4 mm, β ≥ 0.1\n\tnext", "6 × 4 mm, β ≥ 0.1\n\tnext"),
        ("a\x00\x1b\x7f\x9b", "a⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+009B⟩"),
        ("\u202eevil\u2066\u200f\u061c", "⟨U+202E⟩evil⟨U+2066⟩⟨U+200F⟩⟨U+061C⟩"),
        ("\ufeffa\u200bb\ud800", "⟨U+FEFF⟩a⟨U+200B⟩b⟨U+D800⟩"),
    ],
)
def test_only_controlling_and_invisible_characters_are_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_the_result_is_stable_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    shown.encode()


def test_coordinates_have_a_true_minus_sign() -> None:
    assert (signed_mm(-142.46), signed_mm(3.0)) == ("−142.5", "3.0")
