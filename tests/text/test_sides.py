"""Sides and parts of the chest that a phrase names."""

import pytest

from ctscribe.text.sides import denial_covers, in_abdomen, places_named, sides_named


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("in the right lung", {("right", "")}),
        ("in both lower lobes", {("right", "lower lobe"), ("left", "lower lobe")}),
        (
            "in the right upper and lower lobes",
            {("right", "upper lobe"), ("right", "lower lobe")},
        ),
        (
            "in the upper lobe of the left lung and the lower lobe of the right lung",
            {("left", "upper lobe"), ("right", "lower lobe")},
        ),
        ("in the middle lobe", {("right", "middle lobe")}),
        ("in the lingula", {("left", "lingula")}),
        # a draft that puts the lobe where none is has said so
        ("in the left middle lobe", {("left", "middle lobe")}),
        (
            "in both lungs, the largest in the right upper lobe",
            {("right", ""), ("left", ""), ("right", "upper lobe")},
        ),
        ("in the subcarinal area", {("", "subcarinal")}),
        ("in the left atrium", set()),
        ("is seen", set()),
    ],
)
def test_parts_are_named_with_their_sides(text: str, places: set[tuple[str, str]]) -> None:
    assert places_named(text) == places


@pytest.mark.parametrize(
    ("denied", "stated", "expected"),
    [
        ("nowhere", "in the right lung", True),
        ("on the right", "on the left", False),
        ("on the right", "somewhere", False),
        ("on the right", "in the right upper lobe", True),
        ("in the right upper lobe", "in the right lung", False),
        ("on both sides", "somewhere", True),
        ("in the mediastinum", "in the subcarinal area", True),
        ("in the axillae", "in the mediastinum", False),
    ],
)
def test_a_denial_meets_what_lies_surely_within_it(
    denied: str, stated: str, expected: bool
) -> None:
    assert denial_covers(places_named(denied), places_named(stated)) is expected


def test_the_belly_is_told_from_the_chest() -> None:
    assert in_abdomen("No free fluid is seen in the abdomen.")
    assert not in_abdomen("The liver and the lower lobes are normal.")
    assert not in_abdomen("No nodule.")


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["A nodule in the right lung."], {"right"}),
        (["Effusion on the left.", "Effusion on the right."], {"left", "right"}),
        (["Bilateral effusion."], {"left", "right"}),
        (["Emphysema in both lungs."], {"left", "right"}),
        (["Plaques in the left anterior descending artery."], set()),
        (["A nodule."], set()),
        ([], set()),
    ],
)
def test_sides(sentences: list[str], expected: set[str]) -> None:
    assert sides_named(sentences) == expected
