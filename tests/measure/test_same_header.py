"""Who is alike by what is known without a voxel."""

import numpy as np

from ctscribe.measure.same_header import find_alike
from ctscribe.measure.scans import ScanReport

NONE = (0,) * 18


def report(number: int, patient: str, **header: str | float) -> ScanReport:
    return ScanReport(
        f"s{number:02}", patient, f"r{number}", "", NONE, header=tuple(header.items())
    )


KNOWN = [
    report(0, "a", age=40.0, sex="F", manufacturer="A"),
    report(1, "b", age=41.0, sex="M", manufacturer="A"),
    report(2, "c", age=80.0, sex="M", manufacturer="B"),
    report(3, "d", age=80.0, sex="F", manufacturer="A"),
]


def alike(reference: ScanReport) -> tuple[list[str], ScanReport]:
    told, (found,) = find_alike(KNOWN, [reference], np.random.default_rng(0))
    return told, found


def test_the_nearest_by_all_that_is_known_of_both() -> None:
    told, found = alike(report(9, "z", age=79.0, sex="M", manufacturer="B", kernel="sharp"))
    assert told == ["age", "manufacturer", "sex"]
    assert found is KNOWN[2]
    assert alike(report(9, "z", age=42.0, sex="F"))[1] is KNOWN[0]


def test_never_the_patient_and_nothing_where_nothing_is_known() -> None:
    assert alike(report(9, "a", age=40.0, sex="F", manufacturer="A"))[1].patient_id != "a"
    bare = [report(n, f"q{n}") for n in range(2)]
    assert find_alike(KNOWN, bare, np.random.default_rng(0)) == ([], [])


def test_among_equals_one_is_drawn() -> None:
    women = [report(n, f"w{n}", sex="F") for n in range(40)]
    asked = [report(50 + n, f"z{n}", sex="F") for n in range(40)]
    _, found = find_alike(women, asked, np.random.default_rng(0))
    assert len({each.scan_id for each in found}) > 10
