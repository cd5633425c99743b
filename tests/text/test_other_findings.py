import pytest

from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import finding_statuses, label_report
from ctscribe.text.other_findings import OTHER_FINDINGS, find_other_findings
from ctscribe.text.polarity import Status

THYROID = "Thyroid nodule or goitre"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A mass of 4 cm is seen in the right upper lobe.", {"Mass": "present"}),
        ("No mass was detected in either lung.", {"Mass": "absent"}),
        ("A mass in the left breast.", {}),
        ("The effusion has no mass effect.", {}),
        ("Mass-like consolidation on the left.", {"Mass-like consolidation": "present"}),
        ("No mass-like consolidation.", {"Mass-like consolidation": "absent"}),
        ("Right hydropneumothorax.", {"Pneumothorax": "present"}),
        ("Pneumthorax on the left.", {"Pneumothorax": "present"}),
        (
            "Without pneumothorax, a rib fracture is seen.",
            {"Pneumothorax": "absent", "Fracture": "present"},
        ),
        ("History of pneumothorax.", {"Pneumothorax": "absent"}),
        ("There is no doubt about the pneumothorax.", {"Pneumothorax": "present"}),
        ("Pulmonary embolism cannot be excluded.", {"Pulmonary embolism": "uncertain"}),
        (
            "No filling defect was detected in favor of pulmonary embolism.",
            {"Pulmonary embolism": "absent"},
        ),
        (
            "Filling defects in the branches of the right pulmonary artery.",
            {"Pulmonary embolism": "present"},
        ),
        ("Embolisation coils are seen.", {}),
        ("No fracture or lytic lesion was detected.", {"Fracture": "absent"}),
        ("Old rib fractures; no new fracture.", {"Fracture": "present"}),
        ("Hypodense nodules in both thyroid lobes.", {THYROID: "present"}),
        ("Multinodular goiter.", {THYROID: "present"}),
        ("No nodule was seen in the thyroid.", {THYROID: "absent"}),
        ("A nodule in the lung; the thyroid is normal.", {}),
        (
            "Simple cysts in the liver and kidneys.",
            {"Liver lesion": "present", "Kidney cyst": "present"},
        ),
        ("The liver is normal, a cyst in the left kidney.", {"Kidney cyst": "present"}),
        ("No lesion was detected in the liver.", {"Liver lesion": "absent"}),
        ("Hepatosteatosis.", {"Hepatic steatosis": "present"}),
        ("Low density of the liver due to lubrication.", {"Hepatic steatosis": "present"}),
        ("Hyperdense stones in the gallbladder.", {"Gallstones": "present"}),
        (
            "Cholelithiasis, left nephrolithiasis.",
            {"Gallstones": "present", "Kidney stones": "present"},
        ),
        ("No stone or mass in the left kidney.", {"Kidney stones": "absent"}),
        ("Left adrenal adenoma of 2 cm.", {"Adrenal lesion": "present"}),
        ("Both adrenal glands are normal.", {}),
        ("Pneumothorax?", {"Pneumothorax": "uncertain"}),
        ("", {}),
    ],
)  # fmt: skip
def test_what_a_report_says_outside_the_18(text: str, told: dict[str, Status]) -> None:
    assert find_other_findings(text) == told


def test_they_come_in_their_order_and_share_no_name_with_the_18() -> None:
    text = "Gallstones. Rib fracture. No pneumothorax. A mass in the left lung."
    found = list(find_other_findings(text))
    assert found == [finding for finding in OTHER_FINDINGS if finding in found]
    assert not set(OTHER_FINDINGS) & set(FINDINGS)


def test_none_of_them_is_counted_as_one_of_the_18() -> None:
    text = (
        "A mass in the right lung. Pneumothorax. Pulmonary embolism. Rib fractures. "
        "Thyroid nodule. A cyst in the liver. Gallstones. Kidney stones. Left adrenal adenoma. "
        "Hepatosteatosis."
    )
    assert label_report(text) == (0,) * 18
    assert "present" not in finding_statuses(text).values()
