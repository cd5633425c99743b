"""Every finding in every plain way to affirm or deny it: words times sentences."""

import pytest

from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import finding_statuses

TERMS = {
    "Medical material": ("catheter", "tracheostomy cannula", "surgical material"),
    "Arterial wall calcification": (
        "calcific atheroma plaque in the aorta",
        "aortic wall calcification",
    ),
    "Cardiomegaly": ("cardiomegaly", "enlargement of the heart"),
    "Pericardial effusion": ("pericardial effusion", "fluid in the pericardium"),
    "Coronary artery wall calcification": (
        "coronary artery calcification",
        "calcified plaque in the LAD",
    ),
    "Hiatal hernia": ("hiatal hernia", "sliding type hiatal hernia"),
    "Lymphadenopathy": ("lymphadenopathy", "lymph node", "mediastinal LAP"),
    "Emphysema": ("emphysema", "bulla", "emphysematous change"),
    "Atelectasis": ("atelectasis", "atelectatic change", "linear atelectasis"),
    "Lung nodule": ("nodule", "lung nodule", "pulmonary nodule", "nodular lesion"),
    "Lung opacity": ("ground glass opacity", "ground-glass density increase", "ground glass area"),
    "Pulmonary fibrotic sequela": ("sequela change", "fibrotic band", "scar"),
    "Pleural effusion": ("pleural effusion", "effusion", "fluid in the pleural space"),
    "Mosaic attenuation pattern": ("mosaic attenuation pattern", "mosaic attenuation"),
    "Peribronchial thickening": (
        "peribronchial thickening",
        "thickening of the peribronchial sheath",
    ),
    "Consolidation": ("consolidation", "consolidation area"),
    "Bronchiectasis": ("bronchiectasis", "bronchiectatic change", "bronchial dilatation"),
    "Interlobular septal thickening": (
        "interlobular septal thickening",
        "thickening of the interlobular septa",
        "increase in interlobular septal thickness",
    ),
}
DENIED = (
    "No {} was detected.",
    "There is no {}.",
    "{} was not observed.",
    "{} is not seen.",
    "No evidence of {} was found.",
    "No {} is seen in the current examination.",
    "No obvious {} was observed in this examination.",
    "No finding suggesting {} was detected.",
    "There are no signs of {}.",
    "{} could not be detected.",
    "{} was not seen in the examination.",
    "No fracture, {} or mass was observed.",
    "No fracture or {} was detected.",
    "Fracture, {} and pneumothorax were not observed.",
    "Neither fracture nor {} is present.",
    "The chest wall is normal, no {} is seen.",
    "The ribs are normal and {} is not observed.",
    "There is a rib fracture, but no {}.",
    "A rib fracture is seen, {} was not detected.",
    "Without {}.",
    "{}: none.",
    "{}: absent",
    "{} (-)",
    "The study is negative for {}.",
    "No pathological {} was observed.",
    "Absence of {}.",
    "{} was ruled out.",
    "No {} in the sections.",
    "No newly developed {} was observed.",
    "{} observed in the previous examination is not seen now.",
    "The {} described in the previous examination has disappeared.",
    "The {} has completely resolved.",
    "There was no {} in this examination.",
    "{} has not been observed.",
    "No additional {} is seen.",
    "Not seen: {}.",
)
AFFIRMED = (
    "{} is observed.",
    "There is {}.",
    "{}",
    "Minimal {}.",
    "{} is present.",
    "{} was noted on the right.",
    "Stable {}.",
    "Newly developed {}.",
    "{} which was not present in the previous examination is observed.",
    "{} that was not seen in the previous CT is noted.",
    "No fracture was detected, and there is {}.",
    "No fracture was detected; {} is observed.",
    "No fracture is seen, but {} is observed.",
    "No fracture. {} is seen.",
    "There is no fracture, however {} is present.",
    "In addition, {} attracts attention.",
    "Apart from {}, no pathology was detected.",
    "Except for {}, the examination is normal.",
    "{} is seen without pneumothorax.",
    "{} is observed, no fracture was detected.",
    "There is no significant change in the {}.",
    "No difference was found in the {} compared to the previous examination.",
    "{} shows no significant change.",
    "{} is also observed in the previous examination.",
    "{} persists.",
    "{} has increased compared to the previous examination.",
    "{} is seen in the patient with no known malignancy.",
    "{} consistent with infection is observed.",
    "{} may be compatible with infection.",
    "{}, no fracture.",
    "• {}",
    "1. {}",
    "IMPRESSION: {}",
    "{}, which was also present before, is stable.",
    "Due to {}, the evaluation was not optimal.",
    "The ribs are not fractured; {} is seen.",
    "Although there is no fracture, {} is observed.",
    "{} is again noted.",
    "Findings: {} is observed.",
)


def read(sentence: str, words: str) -> dict[str, str]:
    text = sentence.format(words)
    return {**finding_statuses(text[0].upper() + text[1:])}


def test_every_finding_has_words() -> None:
    assert set(TERMS) == set(FINDINGS)


@pytest.mark.parametrize("sentence", DENIED)
def test_what_is_denied_is_absent(sentence: str) -> None:
    for finding, words in ((f, w) for f, terms in TERMS.items() for w in terms):
        told = read(sentence, words)
        assert told.get(finding, "absent") == "absent", words
        assert "present" not in told.values(), words


@pytest.mark.parametrize("sentence", AFFIRMED)
def test_what_is_affirmed_is_present_and_nothing_else_is(sentence: str) -> None:
    for finding, words in ((f, w) for f, terms in TERMS.items() for w in terms):
        told = read(sentence, words)
        assert {f for f, status in told.items() if status == "present"} == {finding}, words
