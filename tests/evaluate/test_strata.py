import pytest

from ctscribe.evaluate.strata import nodule_stratum


@pytest.mark.parametrize(
    ("has_nodule", "size_mm", "expected"),
    [
        (False, None, "none"),
        (False, 9.0, "none"),
        (True, None, "unmeasured"),
        (True, 2.0, "< 6 mm"),
        (True, 5.9, "< 6 mm"),
        (True, 6.0, "6–8 mm"),
        (True, 8.0, "6–8 mm"),
        (True, 8.1, "> 8–30 mm"),
        (True, 30.0, "> 8–30 mm"),
        (True, 31.0, "> 30 mm"),
    ],
)
def test_limits_are_fleischners(has_nodule: bool, size_mm: float | None, expected: str) -> None:
    assert nodule_stratum(has_nodule, size_mm) == expected
