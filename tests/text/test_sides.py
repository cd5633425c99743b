import pytest

from ctscribe.text.sizes import sides_named


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
