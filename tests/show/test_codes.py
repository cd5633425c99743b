"""Codes against the tables of the standard that pydicom carries."""

from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from ctscribe.show import codes
from ctscribe.text.findings import FINDINGS

OUTSIDE = {
    ("8186001", "Cardiomegaly"),
    ("84089009", "Hiatal hernia"),
    ("87433001", "Pulmonary emphysema"),
    ("46621007", "Atelectasis"),
    ("95436008", "Lung consolidation"),
    ("12295008", "Bronchiectasis"),
}
"""Codes of SNOMED CT's international edition that PS3.16 does not use."""

ALL = [
    *codes.FINDING_CODES.values(),
    *codes.SITES.values(),
    *codes.SIDES.values(),
    *codes.STATUSES.values(),
    *(value for value in vars(codes).values() if isinstance(value, Code)),
]


def meanings(code: Code) -> set[str]:
    """All that PS3.16 calls a code."""
    tables: dict[str, Any] = concepts[code.scheme_designator]
    known = tables.values()
    return {names[code.value][0].lower() for names in known if code.value in names}


@pytest.mark.parametrize("code", sorted(set(ALL)), ids=lambda code: code.value)
def test_a_code_means_what_the_standard_says(code: Code) -> None:
    if code.scheme_designator == codes.OWN_SCHEME:
        assert len(code.value) <= 16
    elif (code.value, code.meaning) not in OUTSIDE:
        assert code.meaning.lower() in meanings(code)
    assert len(code.meaning) <= 64


def test_every_finding_has_one_code_of_its_own() -> None:
    assert tuple(codes.FINDING_CODES) == FINDINGS
    assert len(set(codes.FINDING_CODES.values())) == 18
    assert set(codes.SITES) < set(FINDINGS)
