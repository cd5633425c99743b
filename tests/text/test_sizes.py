import pytest

from ctscribe.text.sizes import (
    Extent,
    find_sizes,
    largest_nodule_mm,
    stated_extents,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a nodule of 4 mm", [4]),
        ("23x11 mm", [23]),
        ("6.5x5.5mm", [6.5]),
        ("12 x 9 x 20 mm", [20]),
        ("2-3 mm in diameter", [3]),
        ("less than 1 cm", [10]),
        ("1,5 cm", [15]),
        ("4 millimeter", [4]),
        ("3 mm and 7 mm", [3, 7]),
        ("5 mm (12 mm in the previous examination)", [5]),
        ("previously 9 mm, now 6 mm", [6]),
        ("seen on 12.05.2020", []),
        ("IMA: 42", []),
        ("1-2 millimetric nodules", []),
    ],
)
def test_sizes_are_current_measurements_in_mm(text: str, expected: list[float]) -> None:
    assert [size for size, _ in find_sizes(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nodules in both lungs, the largest 7 mm. Effusion of 30 mm.", 7),
        ("A 5 mm nodule is seen on the left and a 14 mm lymph node in the hilum.", 5),
        ("A lymph node of 12 mm is seen, and a nodule of 6 mm in the left lung.", 6),
        ("Millimetric nodules are seen.", None),
        ("No nodule larger than 4 mm is seen.", None),
        ("A 16 mm nodule in the thyroid gland.", None),
        ("", None),
    ],
)
def test_the_largest_nodule_is_the_nodules_own_size(text: str, expected: float | None) -> None:
    assert largest_nodule_mm(text) == expected


@pytest.mark.parametrize(
    ("text", "finding", "sides", "size_mm"),
    [
        ("A 6 mm nodule is seen on the left.", "Lung nodule", {"left"}, 6.0),
        (
            "Effusion of 30 mm on the right, 12 mm on the left.",
            "Pleural effusion",
            {"left", "right"},
            30.0,
        ),
        ("The aorta is 40 mm, the pericardial effusion 8 mm.", "Pericardial effusion", set(), 8.0),
        ("Lymph nodes are seen beside the 45 mm aorta.", "Lymphadenopathy", set(), None),
        ("The catheter ends 3 cm above the carina.", "Medical material", set(), None),
        ("A right 5 mm nodule; the left lung is clear.", "Lung nodule", {"right"}, 5.0),
    ],
)
def test_side_and_size_belong_to_the_finding_they_are_said_of(
    text: str, finding: str, sides: set[str], size_mm: float | None
) -> None:
    assert stated_extents(text)[finding] == Extent(frozenset(sides), size_mm)


def test_what_is_denied_has_neither_side_nor_size() -> None:
    assert stated_extents("No effusion on the right. No nodule above 4 mm.") == {}
