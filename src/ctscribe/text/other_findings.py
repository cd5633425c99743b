"""Findings beyond the 18 labels, read by the same rules and reported separately."""

from collections.abc import Sequence

from ctscribe.text.labeler import finding_statuses
from ctscribe.text.lexicon import OTHER_ORGAN, Concept, Lexicon, concept
from ctscribe.text.polarity import Status

OTHER_FINDINGS = (
    "Mass",
    "Mass-like consolidation",
    "Pneumothorax",
    "Pulmonary embolism",
    "Fracture",
    "Thyroid nodule or goitre",
    "Liver lesion",
    "Hepatic steatosis",
    "Gallstones",
    "Kidney stones",
    "Kidney cyst",
    "Adrenal lesion",
)
"""In the order of tables: chest first, then neck and upper abdomen."""

_LESION = r"(?:lesions?|cysts?|ha?emangiomas?|metasta\w+|mass(?:es)?|nodul\w+|hypodensit\w+)"
_STONE = r"(?:stones?|calcul(?:us|i)|lithiasis)"
_LIVER = r"(?:livers?|hepatic)"
_GALLBLADDER = r"gall\ ?-?bladder"
_KIDNEY = r"(?:kidneys?|renal|pelvi-?cal\w+|caly(?:x|ces|ceal)|ureters?)"
_ADRENAL = r"(?:adrenals?|surrenals?)"
_THYROID = r"thyroid"
_ORGANS = (
    *(_LIVER, _GALLBLADDER, _KIDNEY, _ADRENAL, _THYROID),
    *("spleen", "splenic", r"pancrea\w*", "lungs?"),
)


def _in_organ(finding: str, hints: str, thing: str, organ: str) -> Concept:
    """A concept of a thing and its organ in one clause, in either order, no other organ between."""
    others = "|".join(each for each in _ORGANS if each != organ)
    apart = rf"(?:(?:{others})\b(?!\ (?:and|or)\b)|normal|natural|unremarkable)"
    gap = rf"(?:(?!\b{apart})[^.;:]){{0,80}}?"
    return concept(finding, hints, rf"\b(?:{organ}\b{gap}\b{thing}|{thing}\b{gap}\b{organ})\b")


_CONCEPTS: Sequence[Concept] = (
    concept(
        "Mass",
        "mass tumor tumour",
        r"\b(?:mass(?:es)?(?!\ (?:effect|index)|[\ -]*like)|tumou?rs?)\b(?!\ (?:effect|like))",
        elsewhere=rf"\b(?:{OTHER_ORGAN}|bone|body|oesophag\w*|esophag\w*|soft\ tissues?)\b",
    ),
    concept(
        "Mass-like consolidation",
        "mass",
        r"\b(?:mass[\ -]*like|mass[\ -]*forming)\ (?:\w+\ ){0,2}?consolid\w*"
        r"|\bconsolid\w*[^.;:,]{0,40}\b(?:mass[\ -]*like|resembling\ (?:an?\ )?mass)",
    ),
    concept(
        "Pneumothorax",
        "pneumo",
        r"\b(?:hydro|ha?emo|pyo)?pneumo-?\ ?thora(?:x|ces|ks)\b",
    ),
    concept(
        "Pulmonary embolism",
        "emboli thromb filling",
        r"""\b(?:(?:thrombo-?)?emboli(?:sms?)?|(?:thrombo-?)?embolus)\b
        |\bfilling\ defects?\b[^.;:]{0,60}\bpulmonary\ (?:arter|trunk|vascul)\w*
        |\bpulmonary\ (?:arter|trunk)\w*[^.;:]{0,60}\bfilling\ defects?\b
        |\bthromb(?:us|i|osis)\b[^.;:]{0,60}\bpulmonary\ (?:arter|trunk)\w*
        |\bpulmonary\ (?:arter|trunk)\w*[^.;:]{0,60}\bthromb(?:us|i|osis)\b""",
        unless=r"\b(?:protocol|fat\ emboli|cerebral|systemic)",
    ),
    concept("Fracture", "fractur broken", r"\bfractur\w*|\bbroken\ (?:\w+\ )?(?:ribs?|bones?)\b"),
    concept("Thyroid nodule or goitre", "goit", r"\bgoit(?:er|re)s?\b"),
    _in_organ("Thyroid nodule or goitre", "thyroid", _LESION, _THYROID),
    _in_organ("Liver lesion", "liver hepatic", _LESION, _LIVER),
    concept(
        "Hepatic steatosis",
        "steato fatty lubricat",
        r"""\b(?:hepato-?\ ?steatosis|steatohepat\w*|steatosis|fatty\ (?:\w+\ ){0,2}?livers?
        |livers?\b[^.;:]{0,80}\b(?:fatty|lubricat\w*)|lubricat\w*\b[^.;:]{0,60}\blivers?)\b""",
    ),
    concept(
        "Gallstones",
        "gallstone gall-stone gall cholelith cholecystolith",
        r"\b(?:gall[\ -]?stones?|cholelith\w*|cholecystolith\w*)\b",
    ),
    _in_organ("Gallstones", "gall", _STONE, _GALLBLADDER),
    concept("Kidney stones", "nephrolith urolith", r"\b(?:nephrolith\w*|urolith\w*)\b"),
    _in_organ("Kidney stones", "kidney renal calic caly ureter", _STONE, _KIDNEY),
    _in_organ("Kidney cyst", "cyst", r"cysts?", _KIDNEY),
    _in_organ("Adrenal lesion", "adrenal", rf"(?:{_LESION}|adenomas?|myelolipomas?)", _ADRENAL),
)
_LASTING = frozenset(OTHER_FINDINGS) - {"Pneumothorax", "Pulmonary embolism"}

OTHERS = Lexicon(_CONCEPTS, _LASTING)
"""The lexicon of `OTHER_FINDINGS`."""


def find_other_findings(text: str) -> dict[str, Status]:
    """The status of each of `OTHER_FINDINGS` that ``text`` names, in their order."""
    statuses = finding_statuses(text, OTHERS)
    return {finding: statuses[finding] for finding in OTHER_FINDINGS if finding in statuses}
