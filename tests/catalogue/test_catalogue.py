"""Every row of the catalogue is built, read, and ends in the codes that the table promises."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from ctscribe.base.error_codes import CODES
from tests.catalogue import (
    archives,
    dicom_bytes,
    dicom_folders,
    nifti_bytes,
    nifti_places,
    nifti_voxels,
)
from tests.catalogue.case import Case
from tests.catalogue.catalogue import CATALOGUE
from tests.catalogue.elsewhere import HELD_ELSEWHERE

TESTS = Path(__file__).resolve().parents[1]
ROOMS = (nifti_bytes, nifti_voxels, nifti_places, dicom_folders, dicom_bytes, archives)
CASES: list[Case] = [case for room in ROOMS for case in room.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row} {case.name}")
def test_case(case: Case, tmp_path: Path) -> None:
    case.hold(tmp_path)


def test_the_table_has_the_53_rows_and_knows_its_codes() -> None:
    assert len(CATALOGUE) == 53
    for row in CATALOGUE.values():
        assert row.codes <= CODES.keys()
        assert row.told.endswith(".")


def test_every_row_is_held_here_or_elsewhere() -> None:
    assert {case.row for case in CASES} | HELD_ELSEWHERE.keys() == CATALOGUE.keys()


def test_what_is_held_elsewhere_is_there() -> None:
    for places in HELD_ELSEWHERE.values():
        for place in places:
            file, name = place.split("::")
            tree = ast.parse((TESTS / file).read_text())
            functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
            (found,) = [function for function in functions if function.name == name]
            asserted = (ast.Assert, ast.With, ast.Call)
            assert any(isinstance(node, asserted) for node in ast.walk(found))


@pytest.mark.parametrize("row", sorted(CATALOGUE))
def test_a_row_ends_in_its_codes_and_no_others(row: int) -> None:
    """Both ways: no code is promised that no test sees, none is seen that is not promised."""
    seen: defaultdict[int, set[str]] = defaultdict(set)
    for case in CASES:
        seen[case.row] |= case.codes
    promised = CATALOGUE[row].codes
    assert seen[row] <= promised
    files = {place.split("::")[0] for place in HELD_ELSEWHERE.get(row, ())}
    texts = "".join((TESTS / file).read_text() for file in files)
    assert {code for code in promised - seen[row] if code not in texts} == set()
