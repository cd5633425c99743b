"""How radiologists name the 18 findings: patterns, and the surroundings that void them.

Written for lower-case English as CT-RATE has it, which was translated from Turkish: "natural"
means normal, "CTO" is the cardiothoracic ratio, "sequela" is a scar.
"""

import re
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Concept:
    """A way to name findings."""

    findings: tuple[str, ...]
    """What an affirmed mention means."""
    literals: tuple[str, ...]
    """At least one of these strings is in every match; a quick way to say no."""
    pattern: re.Pattern[str]
    """The words themselves."""
    unless: re.Pattern[str] | None = None
    """Voids a match when it occurs in the same sentence."""


def _concept(findings: str, literals: str, pattern: str, unless: str | None = None) -> Concept:
    return Concept(
        tuple(findings.split("|")),
        tuple(literals.split("|")),
        re.compile(pattern, re.VERBOSE),
        re.compile(unless, re.VERBOSE) if unless else None,
    )


_NOT_LUNG = r"""\b(?:thyroid|adrenal|surrenal|breast|mammary|spleen|splenic|liver|hepatic|kidney|renal|pancrea\w*
    |bladder|prostat\w*|schmorl\w*|isthmus|skin|subcutaneous|uter\w*|ovar\w*|gastric|stomach|colon\w*
    |periton\w*|omental|thymus|thymic|parotid|vertebra\w*|muscle\w*|gland|glands|crus)\b"""

CONCEPTS: tuple[Concept, ...] = (
    _concept(
        "Medical material",
        "catheter|tube|pacemaker|sutur|sternotomy|stent|prosthe|implant|clip|cannula|port|device"
        "|electrode|tracheostomy|material|valve|wire|plate|screw|drain|pace|icd|fixat|metallic|filter|graft",
        r"""\b(?:(?:\w*catheter|drain|cannula|nasogastric\ tube|tracheostomy|pacemaker|pace|icd
        |electrode|clip|stent|prosthe[st]i[sc]|implant|graft|screw|plate|sternotomy|suture|endoprosthesis
        |valve\ (?:replacement|prosthesis)|(?:prosthetic|artificial|metallic|mechanical)\ \w*\ ?valve)s?
        |(?:surgical|operation|operative|fixation|fixator|stabili[sz]ation|osteosynthesis|fixative|instrumentation|metallic|prosthetic|suture|medical)\ (?:material|suture|clip|density|densit|wire|sutur|implant|hardware)\w*
        |(?:endotracheal|tracheostomy|intubation|nasogastric|chest|thorax|drainage|feeding|enteric|tracheal)\ tubes?
        |port\ (?:chamber|reservoir|device)|venous\ port|chest\ port|ng\ tube|sternal\ wires?|vena\ cava\ filter)\b""",
    ),
    _concept(
        "Arterial wall calcification",
        "aort|atheroscl|atherom|calcific|arteri|vascular|supra",
        r"""(?:\b(?:aort\w*|arch|arcus|supraaortic|brachiocephalic|subclavian|carotid|arterial|arter(?:y|ies)|vascular|vessels?|iliac|celiac|splenic\ artery)\b[^.;:]{0,90}?\b(?:atherom\w*|atheros?clero\w*|calcif\w*|plaques?|plaque\w*)
        |\b(?:atherom\w*|atherosclero\w*|calcif\w*|plaques?)\b[^.;:]{0,100}?\b(?:aort\w*|arch|arcus|supraaortic|brachiocephalic|subclavian|carotid|arterial\ (?:wall|structures?)|vascular|vessels|main\ arter\w*|iliac|arter(?:y|ies))\b
        |\batheros?clero\w*)""",
        r"""\bcalcific\ (?:lymph|lap)|\bvalve\b.{0,10}$""",
    ),
    _concept(
        "Coronary artery wall calcification",
        "coron|lad|cx|rca",
        r"""(?:\bcoronary\b[^.;:]{0,90}?\b(?:atherom\w*|atheros?clero\w*|calcif\w*|plaques?)
        |\b(?:atherom\w*|atheros?clero\w*|calcif\w*|plaques?)\b[^.;:]{0,110}?\bcoronar\w*
        |\b(?:lad|rca|cx)\b[^.;:]{0,60}?\b(?:calcif\w*|plaques?))""",
    ),
    _concept(
        "Cardiomegaly",
        "heart|cardi|ctr|cto|atri|ventric",
        r"""(?:\bcardiomegal\w*
        |\b(?:heart|cardiac|cardiothoracic|ctr|cto)\b[^.;:]{0,60}?\b(?:increase[ds]?|enlarge\w*|larger?|upper\ (?:limit|border)\w*|above|greater|big|wide\w*|dilat\w*)
        |\b(?:increase\w*|enlarge\w*|enlargement)\b\ (?:in|of)\ (?:the\ )?(?:heart|cardiac|cardiothoracic|ctr|cto)\b
        |\benlarged\ heart
        |\b(?:atri\w*|ventric\w*|heart\ c\w+)\b[^.;:]{0,40}?\b(?:enlarge\w*|dilat\w*|increased))""",
        r"""\bpulmonary\ (?:artery|trunk)[^.;]{0,60}heart|epicardial\ fat""",
    ),
    _concept(
        "Pericardial effusion",
        "pericard",
        r"""(?:\bpericardi\w*\b[^.;:]{0,50}?\b(?:effusion\w*|fluid|efusion|liquid)
        |\b(?:effusion\w*|fluid|liquid)\b[^.;:]{0,60}?\b(?:pericardi\w*)|\bhemopericard\w*)""",
    ),
    _concept(
        "Pleural effusion",
        "effusion|pleura|hydrothorax|hemothorax|hydropneumo|fluid|empyema",
        r"""(?:\bpleur\w*(?:(?!pericard)[^.;:]){0,50}?\b(?:effusion\w*|fluid|efusion|liquid|empyema)
        |\b(?:effusion\w*|fluid|liquid)\b(?:(?!pericard)[^.;:]){0,60}?\b(?:pleur\w*|hemithora\w*|fissur\w*|both\ lung\w*)
        |\b(?:hydro|hemo|haemo|hydropneumo|chylo)thorax|\bempyema
        |(?<!pericardial\ )(?<!joint\ )\beffusions?\b)""",
        r"""\bpericardi\w*(?!.*pleur)|\bknee|\bjoint|\babdom|\bperihepat""",
    ),
    _concept(
        "Hiatal hernia",
        "hernia|hiatus|hiatal",
        r"""(?:\bhiatal\ \w*\ ?herni\w*|\bhiatus\ herni\w*|\bhiatal|\b(?:sliding|paraesophageal)[^.;]{0,20}herni\w*|\bherni\w*[^.;]{0,30}\bhiatus)""",
    ),
    _concept(
        "Lymphadenopathy",
        "lymph|lap|adenopath",
        r"""\b(?:lymph\ ?(?:-\ ?)?nod\w*|laps?|lymphadenopath\w*|lymphadenomegal\w*|adenopath\w*|conglomerate\ lymph)\b""",
        r"""\bintrapulmonary\ lymph|\bintrapulmonary\ ln""",
    ),
    _concept(
        "Emphysema",
        "emphysem|amphysem|bulla|bullous|bleb|paraseptal|centrilobular|emphyzem|air cyst",
        r"""\b(?:[ea]mph?y[sz]em\w*|bull(?:a|ae|as|ous)\b|blebs?|air\ cysts?)""",
        r"""\b(?:subcutaneous|skin|soft\ tissue|mediastinal|intramuscular|orbital)\b[^.;]{0,40}emphysem|emphysem\w*[^.;]{0,40}\b(?:subcutaneous|skin\b|soft\ tissue|muscle)""",
    ),
    _concept(
        "Atelectasis",
        "atelec|athelec|collaps",
        r"""\b(?<!fibro)(?<!fibro-)(?:sub\w*\ ?)?at(?:h?e)lec\w*|\bcollapsed?\b(?=[^.;]{0,30}(?:lung|lobe))""",
    ),
    _concept(
        "Pulmonary fibrotic sequela",
        "sequel|fibro|scar|fibrosis|pleuroparenchymal|honeycomb|parenchymal band",
        r"""\b(?:sequel\w*|fibro-?\s?atelec\w*|fibrotic\w*|fibrosis|fibrous|fibro\w*|scar(?:s|ring)?\b|pleuro-?parenchymal|parenchymal\ bands?)""",
        r"""\b(?:rib|ribs|fracture|vertebra\w*|liver|kidney|renal|spleen|sternum|clavicle|fibroadenom\w*|fibroid\w*|fibrolipom\w*|hepat\w*)\b""",
    ),
    _concept(
        "Lung nodule",
        "nodul|mass",
        r"""\b(?:\w*nodul\w*|masses|mass\b(?!\ effect))""",
        _NOT_LUNG,
    ),
    _concept(
        "Lung opacity",
        "ground|glass|opaci|infiltrat|density|densit|crazy|frosted|pneumoni|tree|bud",
        r"""\b(?:ground-?\s?-?glass\w*|frosted\ glass|opaci\w*|crazy\ paving|(?:pneumonic\ |active\ )?infiltrat\w*|tree-?\ ?in-?\ ?bud\w*|budding\ tree|ggo|density\ increases?|increased\ densit\w*)""",
        r"""\b(?:liver|subcutaneous|mesenter\w*|fatty|bone|vertebra\w*|sequel\w*|pleuroparenchymal|fibro\w*|muscle|metasta\w*)\b""",
    ),
    _concept(
        "Consolidation",
        "consolid",
        r"""\bconsolid\w*""",
        r"""\b(?:fracture|callus)\b""",
    ),
    _concept("Mosaic attenuation pattern", "mosaic", r"""\bmosaic\w*"""),
    _concept(
        "Peribronchial thickening",
        "bronch",
        r"""(?:\bperibron\w*[^.;:,]{0,30}?\b(?:thick\w*|cuff\w*|sheath\w*)
        |\bbronch\w*[^.;:]{0,40}?\bthick\w*|\bthick\w*[^.;:]{0,40}?\b(?:peri)?bronch\w*)""",
        r"""\bmain\ bronch\w*""",
    ),
    _concept(
        "Bronchiectasis",
        "bronchi|ectas",
        r"""\b(?:\w*bronchi?(?:ol)?o?e[ck]tas\w*|bronchial\ dilat\w*|dilat\w*\ (?:of\ |in\ )?(?:the\ )?bronch\w*)""",
    ),
    _concept(
        "Interlobular septal thickening",
        "sept",
        r"""(?:\bsept\w*[^.;:]{0,40}?\b(?:thick\w*|promin\w*)|\bthick\w*[^.;:]{0,40}?\b(?:interlobular|septa\w*|intralobular))""",
        r"""\b(?:nasal|interventricular|interatrial|gallbladder)\b""",
    ),
)
"""In no particular order; a sentence may match several."""
