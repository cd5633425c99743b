"""The 18 labels → a report in stock sentences."""

from ctscribe.base.types import Labels
from ctscribe.text.findings import FINDINGS

_STATED = {
    "Medical material": ("Medical material is seen.", "Medical material."),
    "Arterial wall calcification": (
        "Calcified atheromatous plaques are seen in the wall of the aorta.",
        "Arterial wall calcification.",
    ),
    "Cardiomegaly": ("There is cardiomegaly.", "Cardiomegaly."),
    "Pericardial effusion": ("There is a pericardial effusion.", "Pericardial effusion."),
    "Coronary artery wall calcification": (
        "Calcified plaques are seen in the coronary arteries.",
        "Coronary artery calcification.",
    ),
    "Hiatal hernia": ("There is a hiatal hernia.", "Hiatal hernia."),
    "Lymphadenopathy": ("Enlarged lymph nodes are seen.", "Lymphadenopathy."),
    "Emphysema": ("Emphysema is seen in both lungs.", "Emphysema."),
    "Atelectasis": ("Atelectasis is seen.", "Atelectasis."),
    "Lung nodule": ("A lung nodule is seen.", "Lung nodule."),
    "Lung opacity": ("Ground-glass density is seen in the lungs.", "Ground-glass opacity."),
    "Pulmonary fibrotic sequela": ("Fibrotic sequelae are seen.", "Fibrotic sequelae."),
    "Pleural effusion": ("There is a pleural effusion.", "Pleural effusion."),
    "Mosaic attenuation pattern": (
        "A mosaic attenuation pattern is seen in both lungs.",
        "Mosaic attenuation pattern.",
    ),
    "Peribronchial thickening": ("Peribronchial thickening is seen.", "Peribronchial thickening."),
    "Consolidation": ("Consolidation is seen.", "Consolidation."),
    "Bronchiectasis": ("Bronchiectasis is seen.", "Bronchiectasis."),
    "Interlobular septal thickening": (
        "Interlobular septal thickening is seen.",
        "Interlobular septal thickening.",
    ),
}
"""Finding → its sentences in the Findings and in the Impression, in the order of `FINDINGS`."""

_NORMAL = (
    (("Cardiomegaly",), "The heart is normal in size."),
    (("Pleural effusion", "Pericardial effusion"), "No pleural or pericardial effusion is seen."),
    (("Lymphadenopathy",), "No enlarged lymph nodes are seen."),
    (
        ("Lung nodule", "Lung opacity", "Consolidation"),
        "No nodule, ground-glass density or consolidation is seen in the lungs.",
    ),
)
"""Findings, and the sentence that is written if none of them is present."""
_NOTHING = "No abnormality is seen."


def write_template(labels: Labels) -> tuple[str, str]:
    """Writes Findings and Impression that state exactly the labels that are 1."""
    present = [finding for finding, label in zip(FINDINGS, labels, strict=True) if label]
    normal = [text for findings, text in _NORMAL if not set(findings) & set(present)]
    findings = " ".join([*(_STATED[finding][0] for finding in present), *normal])
    impression = " ".join(_STATED[finding][1] for finding in present)
    return findings, impression or _NOTHING
