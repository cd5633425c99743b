"""A draft as a FHIR DiagnosticReport, release R5 or R4B.

In: a draft, and the identity of its patient where it was read. Out: a JSON-able resource: status
preliminary, the text as it stands in ``report.txt``, and contained in it the device that wrote and
an observation for each finding. The same draft gives the same bytes, and drafts that differ in
their time alone give the same id, so that a server replaces one by the other.
"""

import base64
import html
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydicom.sr.coding import Code

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.files import sha256_of_json
from ctscribe.show.codes import (
    CT_CHEST_REPORT,
    DIAMETER,
    FINDING_CODES,
    LATERALITY,
    MILLIMETRE,
    OWN_SCHEME,
    PERCENT,
    PROBABILITY,
    SIDES,
    SITES,
    STATUSES,
    SYSTEMS,
)
from ctscribe.show.filing import pseudonym_of, written_at
from ctscribe.show.page import printable
from ctscribe.show.patient_report import PatientReport, to_json, to_text
from ctscribe.text.sections import split_report
from ctscribe.text.sizes import Extent, stated_extents
from ctscribe.write.draft import Draft, FindingRow, Provenance

Release = Literal["R5", "R4B"]
Json = dict[str, Any]

_DEVICE = {"reference": "#device"}
_UIDS = "urn:dicom:uid"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"


def diagnostic_report(
    draft: Draft,
    report: PatientReport,
    identity: Mapping[str, str] | None = None,
    release: Release = "R5",
) -> Json:
    """The resource; without an identity the patient is called after the scan's voxels.

    Args:
        draft: Of any scan.
        report: The draft with its sentences, as the page shows them.
        identity: See `SourceSeries.identity`.
        release: Of FHIR.
    """
    subject = _subject(draft, identity)
    issued = written_at(draft).strftime("%Y-%m-%dT%H:%M:%SZ")
    observations = _observations(draft, report)
    resource: Json = {
        "resourceType": "DiagnosticReport",
        "id": _id_of(report, subject),
        "meta": {
            "security": [_coding(f"{_TERMINOLOGY}/v3-ActReason", "HRESCH", "healthcare research")],
            "tag": [{"code": "research-use-only", "display": RESEARCH_USE}],
        },
        "text": {"status": "generated", "div": _narrative(report)},
        "contained": [
            _device(draft.provenance, release),
            *(one | {"subject": subject, "device": _DEVICE} for one in observations),
        ],
        "status": "preliminary",
        "category": [{"coding": [_coding(f"{_TERMINOLOGY}/v2-0074", "CT", "CAT Scan")]}],
        "code": _concept(CT_CHEST_REPORT),
        "subject": subject,
        "issued": issued,
        "result": [{"reference": f"#{one['id']}"} for one in observations],
        "presentedForm": [_attachment(to_text(report), report.headline, issued)],
    }
    if conclusion := _conclusion(report):
        resource["conclusion"] = conclusion
    return resource | (_of_study(identity, release) if identity else {})


def _id_of(report: PatientReport, subject: Json) -> str:
    content = to_json(report)
    content["provenance"] = {**content["provenance"], "created": None}
    return sha256_of_json([content, subject])


def _coding(system: str, code: str, display: str) -> Json:
    return {"system": system, "code": code, "display": display}


def _concept(code: Code, text: str | None = None) -> Json:
    """A concept of a known scheme with its code, of our own as text."""
    if code.scheme_designator == OWN_SCHEME:
        return {"text": text or code.meaning}
    system = SYSTEMS[code.scheme_designator]
    return {"coding": [_coding(system, code.value, code.meaning)], "text": text or code.meaning}


def _quantity(value: float, unit: Code) -> Json:
    system = SYSTEMS[unit.scheme_designator]
    return {"value": value, "unit": unit.value, "system": system, "code": unit.value}


def _device(made_by: Provenance, release: Release) -> Json:
    name = {"type": "user-friendly-name"}
    names = {
        "R5": {"name": [{"value": "ctscribe", **name}]},
        "R4B": {"deviceName": [{"name": "ctscribe", **name}]},
    }
    return {
        "resourceType": "Device",
        "id": "device",
        "manufacturer": "ctscribe",
        **names[release],
        "modelNumber": made_by.model_preset,
        "version": [
            {"type": {"text": "ctscribe"}, "value": made_by.ctscribe_version},
            {"type": {"text": "weights, SHA-256"}, "value": made_by.weights_sha256},
            {"type": {"text": "recipe, SHA-256"}, "value": made_by.recipe_sha256},
        ],
    }


def _subject(draft: Draft, identity: Mapping[str, str] | None) -> Json:
    """Refers to the patient by identifier, as whoever receives the report knows them."""
    if identity is None:
        kind = _coding(f"{_TERMINOLOGY}/v2-0203", "ANON", "Anonymous identifier")
        pseudonym = pseudonym_of(draft) or "scan"
        return {"type": "Patient", "identifier": {"type": {"coding": [kind]}, "value": pseudonym}}
    kind = _coding(f"{_TERMINOLOGY}/v2-0203", "MR", "Medical record number")
    number: Json = {"type": {"coding": [kind]}, "value": identity["PatientID"]}
    if issuer := identity.get("IssuerOfPatientID"):
        number["assigner"] = {"display": issuer}
    name = " ".join(re.sub(r"[\^=]", " ", identity.get("PatientName", "")).split())
    return {"type": "Patient", "identifier": number, **({"display": name} if name else {})}


def _date(da: str) -> str:
    return f"{da[:4]}-{da[4:6]}-{da[6:]}"


def _of_study(identity: Mapping[str, str], release: Release) -> Json:
    """References by identifier to the study and its order, and the day of the study."""
    uid = {"system": _UIDS, "value": f"urn:oid:{identity['StudyInstanceUID']}"}
    found: Json = {
        "study" if release == "R5" else "imagingStudy": [
            {"type": "ImagingStudy", "identifier": uid}
        ]
    }
    if number := identity.get("AccessionNumber"):
        kind = {"coding": [_coding(f"{_TERMINOLOGY}/v2-0203", "ACSN", "Accession ID")]}
        order = {"type": "ServiceRequest", "identifier": {"type": kind, "value": number}}
        found["basedOn"] = [order]
    if day := identity.get("StudyDate"):
        found["effectiveDateTime"] = _date(day)
    return found


def _observations(draft: Draft, report: PatientReport) -> list[Json]:
    """One for each finding, or one that says why there is none."""
    if report.labels:
        extents = stated_extents("\n".join(split_report(draft.text)))
        return [_observation(row, extents.get(row.finding)) for row in report.labels]
    reason = report.not_assessable or "the model wrote nothing"
    return [
        {
            "resourceType": "Observation",
            "id": "no-report",
            "status": "preliminary",
            "code": {"text": "Findings of the chest CT"},
            "dataAbsentReason": _absent("not-performed", "Not Performed"),
            "note": [{"text": printable(f"No report was written: {reason}.")}],
        }
    ]


def _observation(row: FindingRow, extent: Extent | None) -> Json:
    """What the text says of a finding, with its probability, size and side."""
    found: Json = {
        "resourceType": "Observation",
        "id": row.finding.lower().replace(" ", "-"),
        "status": "preliminary",
        "code": _concept(FINDING_CODES[row.finding], row.finding),
    }
    if row.status == "not mentioned":
        found["dataAbsentReason"] = _absent("unknown", "Unknown") | {"text": row.status}
    else:
        found["valueCodeableConcept"] = _concept(STATUSES[row.status], row.status)
    if row.finding in SITES:
        found["bodySite"] = _concept(SITES[row.finding])
    components = []
    if row.probability is not None:
        quantity = _quantity(round(100 * row.probability, 2), PERCENT)
        components.append({"code": _concept(PROBABILITY), "valueQuantity": quantity})
    if extent is not None and extent.size_mm is not None:
        quantity = _quantity(extent.size_mm, MILLIMETRE)
        components.append({"code": _concept(DIAMETER), "valueQuantity": quantity})
    if extent is not None and extent.sides in SIDES:
        side = _concept(SIDES[extent.sides])
        components.append({"code": _concept(LATERALITY), "valueCodeableConcept": side})
    return found | ({"component": components} if components else {})


def _absent(code: str, display: str) -> Json:
    return {"coding": [_coding(f"{_TERMINOLOGY}/data-absent-reason", code, display)]}


def _attachment(text: str, title: str, created: str) -> Json:
    return {
        "contentType": "text/plain; charset=utf-8",
        "data": base64.b64encode(text.encode()).decode(),
        "title": title,
        "creation": created,
    }


def _conclusion(report: PatientReport) -> str:
    if report.not_assessable is not None:
        return printable(f"No report was written: {report.not_assessable}.")
    return printable(" ".join(report.impression))


def _narrative(report: PatientReport) -> str:
    """The text in XHTML, with what must stand above it."""
    lines = [
        f"<p><b>{_escaped(report.headline)}. {_escaped(RESEARCH_USE)}</b></p>",
        f"<p>Study: {_escaped(report.study)}</p>",
        *(f"<p>Warning: {_escaped(notice)}</p>" for notice in report.notices),
    ]
    for heading, sentences in (("Findings", report.findings), ("Impression", report.impression)):
        if sentences:
            lines.append(f"<p><b>{heading}</b></p><p>{_escaped(' '.join(sentences))}</p>")
    if report.not_assessable is not None:
        lines.append(f"<p>{_escaped(_conclusion(report))}</p>")
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{"".join(lines)}</div>'


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=False)
