"""Codes of what a draft says, for documents that other systems read.

In: names of findings, sides and statuses. Out: `pydicom.sr.coding.Code`s. Codes of LOINC, DCM and
UCUM, of places, sides and statuses are those of DICOM PS3.16 (2024e), as pydicom's tables have
them. Codes of findings are PS3.16's too (``30746006``, ``373945007``, ``60046008``, ``27925004``,
``112001``) or those of SNOMED CT's international edition. A finding of which neither has the very
concept is coded in a scheme of our own, in which its number is its place in `FINDINGS`.
"""

from collections.abc import Mapping

from pydicom.sr.coding import Code

from ctscribe.text.findings import FINDINGS

OWN_SCHEME = "99CTSCRIBE"

# PS3.16's CID 12248 names 287272002 Cardiomegaly, which SNOMED CT gives to a septal defect.
_KNOWN = {
    "Cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "Pericardial effusion": Code("373945007", "SCT", "Pericardial effusion"),
    "Hiatal hernia": Code("84089009", "SCT", "Hiatal hernia"),
    "Lymphadenopathy": Code("30746006", "SCT", "Lymphadenopathy"),
    "Emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "Atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "Lung nodule": Code("27925004", "SCT", "Nodule"),
    "Lung opacity": Code("112001", "DCM", "Opacity"),
    "Pleural effusion": Code("60046008", "SCT", "Pleural effusion"),
    "Consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "Bronchiectasis": Code("12295008", "SCT", "Bronchiectasis"),
}

_LUNG = Code("39607008", "SCT", "Lung")
_BRONCHUS = Code("955009", "SCT", "Bronchus")


def own_code(value: str, meaning: str) -> Code:
    """A code of our own scheme."""
    return Code(value, OWN_SCHEME, meaning)


FINDING_CODES: Mapping[str, Code] = {
    name: _KNOWN.get(name) or own_code(f"finding-{number}", name)
    for number, name in enumerate(FINDINGS, 1)
}

SITES: Mapping[str, Code] = {
    "Arterial wall calcification": Code("51114001", "SCT", "Artery"),
    "Cardiomegaly": Code("80891009", "SCT", "Heart"),
    "Pericardial effusion": Code("76848001", "SCT", "Pericardium"),
    "Coronary artery wall calcification": Code("41801008", "SCT", "Coronary artery"),
    "Hiatal hernia": Code("280062008", "SCT", "Esophageal Hiatus"),
    "Pleural effusion": Code("3120008", "SCT", "Pleura"),
    "Peribronchial thickening": _BRONCHUS,
    "Bronchiectasis": _BRONCHUS,
    **dict.fromkeys(
        (
            *("Emphysema", "Atelectasis", "Lung nodule", "Lung opacity", "Consolidation"),
            *("Pulmonary fibrotic sequela", "Mosaic attenuation pattern"),
            "Interlobular septal thickening",
        ),
        _LUNG,
    ),
}
"""Where a finding is; those that may be anywhere have none."""

SIDES: Mapping[frozenset[str], Code] = {
    frozenset({"right"}): Code("24028007", "SCT", "Right"),
    frozenset({"left"}): Code("7771000", "SCT", "Left"),
    frozenset({"right", "left"}): Code("51440002", "SCT", "Bilateral"),
}
"""By `sizes.Extent.sides`."""

STATUSES: Mapping[str, Code] = {
    "present": Code("52101004", "SCT", "Present"),
    "uncertain": Code("373068000", "SCT", "Undetermined"),
    "absent": Code("272519000", "SCT", "Absent"),
    "not mentioned": own_code("not-mentioned", "Not mentioned in the text"),
}
"""By `FindingRow.status`."""

DIAMETER = Code("81827009", "SCT", "Diameter")
LATERALITY = Code("272741003", "SCT", "Laterality")
CT_CHEST_REPORT = Code("24627-2", "LN", "CT Chest Report")
PROBABILITY = own_code("probability", "Calibrated probability that the finding is present")
FROM_TEXT = own_code("stated-in-text", "Stated in the text of the draft")
PERCENT = Code("%", "UCUM", "Percent")
MILLIMETRE = Code("mm", "UCUM", "mm")

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
}
"""What FHIR calls the schemes; ours has no address there, its concepts are text alone."""
