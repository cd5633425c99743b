"""Sentences of our own that hold the traps real reports hold."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import find_mentions, label_report

NODULE, EFFUSION, HERNIA = "Lung nodule", "Pleural effusion", "Hiatal hernia"
NODES, OPACITY, SEQUELA = "Lymphadenopathy", "Lung opacity", "Pulmonary fibrotic sequela"
AORTA, CORONARY = "Arterial wall calcification", "Coronary artery wall calcification"
MATERIAL, HEART, PERICARDIUM = "Medical material", "Cardiomegaly", "Pericardial effusion"
EMPHYSEMA, ATELECTASIS, MOSAIC = "Emphysema", "Atelectasis", "Mosaic attenuation pattern"
PERIBRONCHIAL, CONSOLIDATION = "Peribronchial thickening", "Consolidation"
BRONCHIECTASIS, SEPTAL = "Bronchiectasis", "Interlobular septal thickening"

SENTENCES: list[tuple[str, set[str]]] = [
    # One plain way to say each.
    ("A jugular catheter ends in the superior vena cava.", {MATERIAL}),
    ("Calcified plaques line the aortic arch.", {AORTA}),
    ("The cardiothoracic ratio is above normal limits.", {HEART}),
    ("Minimal pericardial effusion is noted.", {PERICARDIUM}),
    ("Calcification is present in the LAD.", {CORONARY}),
    ("Sliding type hiatal hernia.", {HERNIA}),
    ("Several millimetric lymph nodes are seen in the mediastinum.", {NODES}),
    ("There are paraseptal emphysematous areas.", {EMPHYSEMA}),
    ("Band-like atelectasis in the lingula.", {ATELECTASIS}),
    ("A 4 mm nodule lies in the right middle lobe.", {NODULE}),
    ("Patchy ground glass areas are seen on the left.", {OPACITY}),
    ("Pleuroparenchymal sequelae at the apices.", {SEQUELA}),
    ("Bilateral effusion of 2 cm is observed.", {EFFUSION}),
    ("Mosaic attenuation is seen on both sides.", {MOSAIC}),
    ("There is peribronchial thickening at the hila.", {PERIBRONCHIAL}),
    ("Consolidation with air bronchograms on the right.", {CONSOLIDATION}),
    ("Cylindrical bronchiectasis in the lower lobes.", {BRONCHIECTASIS}),
    ("Interlobular septa are thickened at the bases.", {SEPTAL}),
    # Denied before, denied after, denied as a list.
    ("No pleural or pericardial effusion was detected.", set()),
    ("Pericardial effusion or thickening was not observed.", set()),
    ("Consolidation, ground-glass density or nodules were not detected.", set()),
    ("There is no evidence of bronchiectasis, atelectasis or emphysema.", set()),
    ("The lungs are free of nodules.", set()),
    ("Neither hiatal hernia nor lymphadenopathy is seen.", set()),
    ("Pleural effusion: none.", set()),
    ("Lymph nodes of pathological size weren't found.", set()),
    ("Heart size is normal.", set()),
    ("Heart size is normal, the pulmonary trunk is enlarged.", set()),
    # The polarity turns within the sentence.
    ("No mass is detected, and sequelae are observed at the apex.", {SEQUELA}),
    ("No wall thickening is seen, and there is a hiatal hernia.", {HERNIA}),
    ("A nodule is seen on the left, pleural effusion was not detected.", {NODULE}),
    ("No effusion but consolidation in the lower lobe.", {CONSOLIDATION}),
    ("Apart from linear atelectasis, no consolidation is seen.", {ATELECTASIS}),
    ("Emphysema is present without bullae or bronchiectasis.", {EMPHYSEMA}),
    ("There is a nodule, however no lymph node is enlarged.", {NODULE}),
    # Words that look like denial.
    ("There is no change in the nodule of the left lung.", {NODULE}),
    ("Lymph nodes that did not reach pathological size are seen.", {NODES}),
    ("A nodule which was not observed in the previous examination is seen.", {NODULE}),
    ("The nodule has not increased in size.", {NODULE}),
    ("Consolidation shows no significant regression.", {CONSOLIDATION}),
    # What is gone, and what belongs to an earlier examination.
    ("The nodule seen in the previous examination is not observed.", set()),
    ("In the previous examination there was consolidation on the right.", set()),
    ("The pleural effusion has completely resolved.", set()),
    ("The drainage catheter was removed.", set()),
    # Doubt.
    ("An increase in thickness (consolidation?) is seen.", set()),
    ("A nodule that may lie behind it cannot be excluded.", set()),
    # Elsewhere in the body.
    ("A hypodense nodule is seen in the left thyroid lobe.", set()),
    ("Nodular thickening of the adrenal gland is seen.", set()),
    ("Subcutaneous emphysema in the chest wall.", set()),
    ("Free effusion around the left kidney.", set()),
    ("Degenerative changes are seen at the vertebral end plates.", set()),
    ("Sequelae of old rib fractures are seen.", set()),
    ("There are calcified lymph nodes in the aortopulmonary window.", {NODES}),
    # Near neighbours.
    ("Calcified plaques are seen in the coronary arteries.", {CORONARY}),
    ("Calcified plaques are seen in the aorta and coronary arteries.", {AORTA, CORONARY}),
    ("Nodular ground-glass opacities are seen.", {OPACITY}),
    ("Nodular consolidation in the right lower lobe.", {CONSOLIDATION}),
    ("A ground-glass nodule of 6 mm is seen.", {NODULE}),
    ("Fibroatelectatic bands at the bases.", {SEQUELA}),
    ("The finding is consistent with an existent process.", set()),
    ("A small air cyst in the middle lobe.", set()),
    ("Lymph node stations are natural.", set()),
    # Spellings.
    ("Amphysematous changes.", {EMPHYSEMA}),
    ("Frosted glass densities on the right.", {OPACITY}),
    ("Athelectasis in the lower lobe.", {ATELECTASIS}),
    ("CTO has increased in favour of the heart.", {HEART}),
    ("Multiple LAPs are seen in the hila.", {NODES}),
]


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_what_a_sentence_states(sentence: str, expected: set[str]) -> None:
    labels = label_report(sentence)
    assert {f for f, label in zip(FINDINGS, labels, strict=True) if label} == expected


def test_every_finding_is_named_by_some_sentence() -> None:
    assert set().union(*(expected for _, expected in SENTENCES)) == set(FINDINGS)


def test_mentions_carry_status_sentence_and_place() -> None:
    text = "Heart is normal. No nodule is seen; effusion (empyema?) on the right."
    mentions = find_mentions(text)
    assert [(m.finding, m.status, text[slice(*m.span)]) for m in mentions] == [
        (NODULE, "absent", "nodule"),
        (EFFUSION, "present", "effusion"),
        (EFFUSION, "uncertain", "empyema"),
    ]
    assert mentions[0].sentence == "No nodule is seen"


def test_one_affirmation_outweighs_denials_elsewhere() -> None:
    text = "No nodule in the right lung. A nodule in the left lung. No nodule in the thyroid."
    assert label_report(text)[FINDINGS.index(NODULE)] == 1


@given(st.text(max_size=300))
def test_any_text_has_labels_and_spans_inside_it(text: str) -> None:
    assert len(label_report(text)) == 18
    for mention in find_mentions(text):
        start, end = mention.span
        assert 0 <= start < end <= len(text)
        assert mention.sentence in text


@given(st.lists(st.sampled_from([s for s, _ in SENTENCES]), max_size=8))
def test_a_report_states_what_its_sentences_state(sentences: list[str]) -> None:
    apart = [label_report(sentence) for sentence in sentences]
    together = label_report(" ".join(sentences))
    assert together == tuple(max(column, default=0) for column in zip(*apart, strict=True)) or (
        not sentences and together == (0,) * 18
    )


def test_500_reports_are_read_in_a_second() -> None:
    report = " ".join(sentence for sentence, _ in SENTENCES[:24])
    began = time.process_time()
    for _ in range(50):
        label_report(report)
    assert (time.process_time() - began) / 50 < 0.02  # type checks run in tests; ten times slower
