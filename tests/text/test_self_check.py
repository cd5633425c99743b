"""Faults of every kind are found in a text, and what only looks like one is left alone."""

import pytest

from ctscribe.text.self_check import KINDS, check_text

NODULE, NO_EFFUSION = "Nodule.", "No effusion is seen."


def kinds(findings: str, impression: str) -> set[str]:
    return {remark.kind for remark in check_text(findings, impression) if not remark.is_note}


CONTRADICTIONS = [
    "A consolidation of 30 mm is seen in the right lower lobe. No consolidation is seen.",
    "The heart is enlarged. Heart size is normal.",
    "Both lungs are clear. There is a consolidation in the left lower lobe.",
    "No nodule in the right lung. A nodule of 8 mm is in the right upper lobe.",
    "No lymphadenopathy. Enlarged lymph nodes of 18 x 14 mm are seen in the mediastinum.",
    "Pneumothorax is seen on the left. No pneumothorax. No effusion.",
    "Effusion of 12 mm is seen on the left. No significant effusion was observed.",
]


@pytest.mark.parametrize("findings", CONTRADICTIONS)
def test_what_is_stated_and_denied_is_found(findings: str) -> None:
    assert "contradiction" in kinds(findings, "As described, no atelectasis.")


SOUND = [
    ("Effusion is seen on the left. No effusion on the right.", "Left effusion."),
    ("Effusion of 20 mm on the left, no effusion on the right.", "Left effusion."),
    ("A nodule of 8 mm in the right upper lobe. No nodule in the right lower lobe.", NODULE),
    ("A nodule of 8 mm in the right upper lobe. No other nodule is seen.", NODULE),
    ("No pericardial effusion. Bilateral pleural effusion.", "Bilateral pleural effusion."),
    ("Axillary lymph nodes are not enlarged. Enlarged mediastinal nodules.", NODULE),
    ("Lymph nodes of 6 mm are seen in the mediastinum. No enlarged lymph nodes.", "No effusion."),
    ("Bullae are not seen. Emphysema is seen in both lungs.", "Emphysema in both lungs."),
    ("There is a catheter. No tube is seen.", "Catheter."),
    ("Minimal left effusion. No significant effusion on the right.", "Minimal left effusion."),
    ("Right pleural effusion of 22 mm and left pleural effusion of 22 mm.", "Pleural effusion."),
    ("Bilateral effusion. The left effusion has regressed.", "Bilateral effusion."),
    ("Consolidation? No effusion is seen.", "Consolidation?"),
    ("No solid mass is seen. The liver is normal. No solid mass is seen.", "No effusion."),
    ("Chest CT is normal.", "Normal."),
    ("No nodule is seen.", "No nodule is seen."),
]


@pytest.mark.parametrize(("findings", "impression"), SOUND)
def test_what_only_looks_like_a_fault_is_left_alone(findings: str, impression: str) -> None:
    assert kinds(findings, impression) == set()


@pytest.mark.parametrize(
    ("findings", "impression", "kind"),
    [
        ("A nodule of 8 mm is seen.", "Consolidation.", "impression"),
        ("A hiatal hernia is seen.", "Thoracic CT within normal limits.", "impression"),
        ("No hiatal hernia is seen.", "Hiatal hernia.", "impression"),
        ("No effusion on the right or on the other side.", "Right effusion.", "impression"),
        ("A nodule of 12 mm is seen.", "Nodule of 21 mm.", "impression"),
        ("Nodule in the left upper lobe.", "Nodule in the right upper lobe.", "side"),
        ("Nodule in the left upper lobe.", "Nodules in both lungs.", "side"),
        (
            "An 8 mm nodule is seen in the right upper lobe. There is a nodule measuring 8 mm in "
            "the left upper lobe.",
            "Nodules.",
            "side",
        ),
        ("Effusion of 22 mm on the right. Effusion of 22 mm on the left.", "Effusion.", "side"),
        ("A 30 mm mass in the left lung. No effusion.", "A 30 mm mass on the right.", "side"),
        ("No effusion is seen. A nodule is seen. No effusion is seen.", NODULE, "repeated"),
        ("The aorta is wide. The aorta is wide. No effusion.", "No effusion.", "repeated"),
        ("A nodule nodule nodule nodule is seen.", NODULE, "repeated"),
        ("No effusion in the lungs in the lungs in the lungs.", "No effusion.", "repeated"),
        ("", NODULE, "empty"),
        ("A nodule is seen.", " . ", "empty"),
        ("The patient is well.", "As before.", "empty"),
        ("No effusion. A nodule of", NODULE, "cut"),
        ("No effusion. A nodule measuring 12", NODULE, "cut"),
        ("A nodule is seen.", "Nodule in the right", "cut"),
    ],
)
def test_each_kind_is_found(findings: str, impression: str, kind: str) -> None:
    finished = not impression.endswith("right")
    found = check_text(findings, impression, finished=finished)
    assert kind in {remark.kind for remark in found}


def test_an_outside_finding_is_a_note() -> None:
    found = check_text("There are stones in the gallbladder. No effusion.", "Gallstones.")
    assert [(remark.kind, remark.finding, remark.is_note) for remark in found] == [
        ("outside", "Gallstones", True)
    ]


def test_a_remark_names_its_sentences_and_stands_once() -> None:
    denied, stated = "No pleural effusion is seen.", "Pleural effusion of 20 mm is present."
    found = check_text(f"{denied} {stated}", "Pleural effusion.")
    assert [remark.kind for remark in found] == ["contradiction", "impression"]
    assert found[0].finding == "Pleural effusion"
    assert set(found[0].sentences) == {denied, stated}


def test_remarks_come_in_the_order_of_their_kinds() -> None:
    found = check_text("Pneumothorax. No pneumothorax. A nodule of", "")
    order = list(KINDS)
    assert [order.index(each.kind) for each in found] == sorted(
        order.index(each.kind) for each in found
    )
    assert len({each.kind for each in found}) == 4
