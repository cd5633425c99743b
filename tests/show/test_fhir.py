"""Drafts as FHIR resources, read back by fhir.resources."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import pytest

from ctscribe import RESEARCH_USE
from ctscribe.show.fhir import Release, diagnostic_report
from ctscribe.show.patient_report import to_text
from ctscribe.show.report import report_of
from ctscribe.write.draft import Draft
from tests.dicom import write_series
from tests.drafts import IDENTITY, STUDY, draft_of, with_block, with_identity
from tests.scans import image_of

STATUSES = {"registered", "partial", "preliminary", "modified", "final", "amended", "corrected"}
MODULES = {"R5": "fhir.resources", "R4B": "fhir.resources.R4B"}
Json = dict[str, Any]


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    folder = tmp_path_factory.mktemp("source") / "series"
    return draft_of(write_series(folder, with_identity, volume=with_block()))


def resource(draft: Draft, identity: dict[str, str] | None = None, release: Release = "R5") -> Json:
    return diagnostic_report(draft, report_of(draft), identity, release)


def read_back(found: Json, release: Release) -> Json:
    """Through the release's own models, each contained resource through its own too."""
    pytest.importorskip("fhir.resources", reason="fhir.resources, which reads, is not installed")

    def through(one: Json) -> Json:
        name = one["resourceType"]
        model = getattr(import_module(f"{MODULES[release]}.{name.lower()}"), name)
        back: Json = json.loads(model.model_validate_json(json.dumps(one)).model_dump_json())
        return back

    assert [through(one) for one in found["contained"]] == found["contained"]
    return through(found)


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["reference"]] if "reference" in value else ()
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from references(each)


@pytest.mark.parametrize("release", ["R5", "R4B"])
@pytest.mark.parametrize("identity", [None, IDENTITY])
def test_each_release_reads_it_back_unchanged(
    draft: Draft, release: Release, identity: dict[str, str] | None
) -> None:
    found = resource(draft, identity, release)
    assert read_back(found, release) == found
    contained = {f"#{one['id']}" for one in found["contained"]}
    assert set(references(found)) == contained, "nothing is contained that nothing refers to"
    assert len(contained) == 19
    assert "study" in found if release == "R5" and identity else "study" not in found
    assert "imagingStudy" in found if release == "R4B" and identity else "imagingStudy" not in found


def test_it_says_what_it_is_and_repeats_the_text(draft: Draft) -> None:
    found = resource(draft)
    assert found["status"] == "preliminary" in STATUSES
    assert {one["status"] for one in found["contained"] if "status" in one} == {"preliminary"}
    assert found["meta"]["tag"][0]["display"] == RESEARCH_USE
    assert found["issued"] == "2026-01-02T10:30:00Z"
    assert found["conclusion"] == "Nodule in the right lung."
    (form,) = found["presentedForm"]
    assert base64.b64decode(form["data"]).decode() == to_text(report_of(draft))
    narrative = "".join(ElementTree.fromstring(found["text"]["div"]).itertext())
    for part in (RESEARCH_USE, "not verified", "Study: case 7", "A nodule of 12 mm is seen"):
        assert part in narrative
    device = found["contained"][0]
    assert device["name"][0]["value"] == "ctscribe"
    assert [each["value"] for each in device["version"]] == ["0.2.0", "a1" * 32, "b2" * 32]


def test_findings_have_status_probability_size_and_side(draft: Draft) -> None:
    by_id = {one["id"]: one for one in resource(draft)["contained"]}
    nodule = by_id["lung-nodule"]
    assert nodule["code"]["coding"][0]["code"] == "27925004"
    assert nodule["valueCodeableConcept"]["coding"][0]["code"] == "52101004"
    probability, size, side = nodule["component"]
    assert (probability["valueQuantity"]["value"], probability["valueQuantity"]["code"]) == (
        52.78,
        "%",
    )
    assert (size["valueQuantity"]["value"], size["valueQuantity"]["code"]) == (12.0, "mm")
    assert side["valueCodeableConcept"]["text"] == "Right"
    assert by_id["pleural-effusion"]["valueCodeableConcept"]["text"] == "absent"
    assert by_id["emphysema"]["valueCodeableConcept"]["text"] == "uncertain"
    assert by_id["atelectasis"]["dataAbsentReason"]["text"] == "not mentioned"
    assert by_id["medical-material"]["code"] == {"text": "Medical material"}


def test_identity_is_told_where_it_is_given_and_nowhere_else(draft: Draft) -> None:
    named = resource(draft, IDENTITY)
    assert named["subject"]["identifier"]["value"] == "PLANTED-ID"
    assert named["subject"]["display"] == "Müller Jörg"
    assert named["study"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert named["basedOn"][0]["identifier"]["value"] == "A-77"
    assert named["effectiveDateTime"] == "2024-05-06"
    plain = json.dumps(resource(draft), ensure_ascii=False)
    assert not [value for value in IDENTITY.values() if len(value) > 2 and value in plain]
    assert resource(draft)["subject"]["identifier"]["value"].startswith("scan-")
    assert resource(draft)["id"] != named["id"], "one does not lead to the other"


def test_the_id_follows_from_what_is_said_and_not_from_when(draft: Draft) -> None:
    found = resource(draft)
    assert resource(draft) == found
    assert len(found["id"]) <= 64
    later = replace(draft, provenance=replace(draft.provenance, created="2026-03-04 05:06 UTC"))
    assert resource(later)["id"] == found["id"]
    assert resource(later)["issued"] == "2026-03-04T05:06:00Z"
    other = replace(draft, text=draft.text.replace("12 mm", "13 mm"))
    assert resource(other)["id"] != found["id"]


@pytest.mark.parametrize("release", ["R5", "R4B"])
def test_hostile_text_is_text(draft: Draft, release: Release) -> None:
    words = (
        "büyük nodül </div><script>alert(1)</script> & \x00\x1b[31m \u202e \ud800 ]]> 肺结节 "
        * 2000
    )
    findings, impression = f"A nodule. {words}", "Nodül \x07."
    hostile = replace(draft, text=f"Findings: {findings}\nImpression: {impression}", study="<b>&")
    found = resource(hostile, None, release)
    assert read_back(found, release) == found
    narrative = "".join(ElementTree.fromstring(found["text"]["div"]).itertext())
    assert narrative.count("<script>alert(1)</script>") == 2000
    assert found["conclusion"] == "Nodül ⟨U+0007⟩."
    assert not any(sign in json.dumps(found, ensure_ascii=False) for sign in "\x00\x1b\u202e\ud800")


@pytest.mark.parametrize("release", ["R5", "R4B"])
@pytest.mark.parametrize("reason", [None, "the slices are blank"])
def test_no_text_is_said_to_be_none(draft: Draft, release: Release, reason: str | None) -> None:
    empty = replace(draft, text="", sentences=(), findings=(), not_assessable=reason)
    found = resource(empty, None, release)
    assert read_back(found, release) == found
    device, observation = found["contained"]
    assert observation["device"]["reference"] == f"#{device['id']}"
    assert (reason or "the model wrote nothing") in observation["note"][0]["text"]
    assert found.get("conclusion") == (reason and f"No report was written: {reason}.")


def test_scans_that_are_no_dicom_or_unreadable_have_one_too(draft: Draft, tmp_path: Path) -> None:
    nib.save(image_of(with_block()), tmp_path / "scan.nii.gz")
    same = resource(draft_of(tmp_path / "scan.nii.gz"))
    assert read_back(same, "R5") == same
    assert same["subject"] == resource(draft)["subject"], "the same voxels, the same pseudonym"
    unread = resource(replace(draft, prepared=None, text="", findings=(), not_assessable="no HU"))
    assert read_back(unread, "R5") == unread
