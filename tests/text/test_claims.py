"""What a report says of each finding, and where."""

import pytest

from ctscribe.text.claims import Claim, read_claims


def told(findings: str, impression: str = "") -> list[tuple[str, str, tuple[str, ...]]]:
    claims = read_claims(findings, impression)
    found = [(claim.finding, claim.status, tuple(sorted(claim.sides))) for claim in claims]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "text",
    [
        "There is effusion of 20 mm on the left, no effusion on the right.",
        "Effusion is seen on the left but no effusion on the right.",
    ],
)
def test_each_status_has_the_side_of_its_own_clause(text: str) -> None:
    assert told(text) == [
        ("Pleural effusion", "present", ("left",)),
        ("Pleural effusion", "absent", ("right",)),
    ]


def test_findings_that_share_a_place_both_have_it() -> None:
    assert told("Consolidation and ground-glass density in the lower lobe of the right lung.") == [
        ("Consolidation", "present", ("right",)),
        ("Lung opacity", "present", ("right",)),
    ]


def test_a_size_belongs_to_its_clause() -> None:
    claims = read_claims("A nodule of 6 mm is seen and consolidation of 3 cm is present.", "")
    assert {claim.finding: claim.sizes_mm for claim in claims} == {
        "Lung nodule": (6.0,),
        "Consolidation": (30.0,),
    }


@pytest.mark.parametrize(
    ("findings", "impression", "number"),
    [
        ("Heart contour and size are normal.", "", 1),
        ("The heart dimensions have increased, its contour is natural.", "", 0),
        ("Both lungs are clear.", "", 4),
        ("", "Thoracic CT examination within normal limits.", 17),
        ("", "Thoracic CT within normal limits except for a hernia.", 0),
        ("Upper abdomen within normal limits.", "", 0),
    ],
)
def test_normal_sentences_deny_without_naming(findings: str, impression: str, number: int) -> None:
    claims: list[Claim] = read_claims(findings, impression)
    assert sum(claim.status == "absent" for claim in claims) == number
