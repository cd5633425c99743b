import pytest

from ctscribe.text.labeler import find_mentions
from ctscribe.text.spelling import meant_by


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("mosiac", "mosaic"),
        ("tickening", "thickening"),
        ("bull", "bulla"),
        ("haital", "hiatal"),
        ("lmyph", "lymph"),
        ("consilidation", "consolidation"),
        ("bronchietasis", "bronchiectasis"),
        ("efusion", "effusion"),
    ],
)
def test_a_slip_is_read_as_the_word_that_was_meant(word: str, meant: str) -> None:
    assert meant_by(word) == meant


@pytest.mark.parametrize(
    "word",
    [
        *("module", "class", "round", "infusion", "coronal", "bullet", "septic", "empyema"),
        *("fibrosis", "consolation", "clarification", "interlobar", "nodes", "bul", "", "sequence"),
    ],
)
def test_words_of_their_own_are_left_alone(word: str) -> None:
    assert meant_by(word) == word


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mosiac  attenuation is seen.", "Mosiac"),
        ("Peribronchial thickenning, bilateral.", "Peribronchial thickenning"),
        ("Peribronchial \t thickning, bilateral.", "Peribronchial \t thickning"),
        ("A bull at the right apex.", "bull"),
    ],
)
def test_a_mention_points_at_the_words_as_they_were_written(text: str, words: str) -> None:
    (mention,) = find_mentions(text)
    assert text[slice(*mention.span)] == words
