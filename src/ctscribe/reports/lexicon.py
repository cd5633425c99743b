"""How radiologists name the 18 findings: patterns, and the surroundings that void them.

Written for lower-case English as CT-RATE has it, which was translated from Turkish: "natural"
means normal, "CTO" is the cardiothoracic ratio, "sequela" is a scar, "icy" is ground glass.
What counts follows CT-RATE's labels: any described lymph node is Lymphadenopathy, a mass alone
is no Lung nodule, infiltration alone is no Lung opacity, an air cyst is no Emphysema, a
bronchial wall alone is not peribronchial.
"""

import re
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Concept:
    """A way to name a finding."""

    finding: str
    """What an affirmed mention means."""
    literals: tuple[str, ...]
    """At least one of these strings is in every match; a quick way to say no."""
    pattern: re.Pattern[str]
    """The words themselves."""
    unless: re.Pattern[str] | None
    """Voids a match when it occurs in the same sentence."""


def _concept(finding: str, literals: str, pattern: str, unless: str | None = None) -> Concept:
    return Concept(
        finding,
        tuple(literals.split()),
        re.compile(pattern, re.VERBOSE),
        re.compile(unless, re.VERBOSE) if unless else None,
    )


_PLAQUE = r"(?:atherom\w*|atheros?clero\w*|calcif\w*|plaques?)"
_VESSEL = r"""(?:aort(?:a|as|ic|o(?!pulm)\w*)(?!\ valve)|arch\b|arcus|supra-?aortic|brachiocephalic
    |subclavian|carotid|iliac|celiac|(?<!coronary\ )(?<!descending\ )(?<!circumflex\ )
    arter(?:y|ies|ial)\b|(?<!coronary\ )vascular|(?<!coronary\ )vessels?)"""
_CORONARY = r"(?:coronar\w*|lad|rca|cx|lcx|circumflex|left\ anterior\ descending)"
_OTHER_ORGAN = r"""(?:thyroid|adrenal|surrenal|breast|mammary|spleen|splenic|liver|hepatic|kidneys?
    |renal|pancrea\w*|bladder|prostat\w*|schmorl\w*|isthmus|skin|subcutaneous|uter\w*|ovar\w*
    |gastric|stomach|colon\w*|periton\w*|omental|omentum|thymus|thymic|parotid|vertebra\w*
    |muscle\w*|glands?|crus|goit(?:er|re)|axilla|hypodense|abdominal|ventric\w*|atri\w*)"""
_GAP = r"[^.;:]"

CONCEPTS: tuple[Concept, ...] = (
    _concept(
        "Medical material",
        "catheter tube pace peg gastrost suture sternotomy stent prosthe clip cannula port"
        " electrode tracheostomy material valve wire screw drain icd metallic filter graft device",
        r"""\b(?:(?:\w*catheter|drain|cannula|tracheostomy|pacemaker|pace|icd|electrode|clip|stent
          |(?:endo)?prosthe[st][ei]s|prosthetic|graft|screw|sternotomy|suture
          |valve\ (?:replacement|prosthesis)|(?:artificial|metallic|mechanical)\ (?:\w+\ )?valve)s?
        |(?:surgical|operation|operative|fixation|osteosynthesis|metallic|medical|orthopedic)
          \ (?:material|suture|clip|densit|wire|implant|hardware|device|plate)\w*
        |(?:endotracheal|tracheostomy|intubation|nasogastric|orogastric|chest|thora(?:x|cic)|drainage
          |feeding|tracheal|ng)\ tubes?
        |(?:port|vascular\ access)\ (?:chamber|reservoir|device)|(?:venous|chest)\ port
        |sternal\ wires?|vena\ cava\ filter|peg\ \w+|gastrostomy
        |(?:pleural|pigtail|thoracic)\ drain\w*)\b""",
        r"\bbreast\ (?:implant|prosthe)",
    ),
    _concept(
        "Arterial wall calcification",
        "athero calcif plaque",
        rf"""\b(?:{_VESSEL}{_GAP}{{0,90}}?\b{_PLAQUE}|{_PLAQUE}{_GAP}{{0,100}}?\b{_VESSEL})""",
        r"\blymph|\blaps?\b|\bpleural\ plaque",
    ),
    _concept(
        "Coronary artery wall calcification",
        "athero calcif plaque",
        rf"\b(?:{_CORONARY}\b{_GAP}{{0,90}}?\b{_PLAQUE}|{_PLAQUE}{_GAP}{{0,110}}?\b{_CORONARY}\b)",
    ),
    _concept(
        "Cardiomegaly",
        "heart cardi ctr cto",
        r"""\b(?:cardiomegal\w*
        |(?:heart|cardiac|cardiothoracic|ctr|cto)\b(?!\ (?:chamber|compartment|cavit))
          (?:(?!\b(?:normal|natural|not?)\b)[^.;:]){0,60}?
          \b(?:increase[ds]?|enlarge\w*|larger?|upper\ (?:limit|border)\w*|above|greater|big|wide\w*
          |dilat\w*)
        |(?:increase\w*|enlarge\w*)\ (?:in|of)\ (?:the\ )?(?:heart|cardiac|cardiothoracic|ctr|cto)\b
        |enlarged\ heart)""",
        r"\bpulmonary\ (?:artery|trunk)[^.;]{0,60}heart|epicardial\ fat|\bpericardi",
    ),
    _concept(
        "Pericardial effusion",
        "pericard",
        rf"""\b(?:pericardi(?:al|um|a)\b{_GAP}{{0,50}}?\b(?:effusion\w*|fluid|efusion|liquid)
        |(?:effusion\w*|fluid|liquid)\b(?:(?!\bpleur)[^.;:]){{0,130}}?\bpericardi(?:al|um|a)\b
        |hemopericard\w*)""",
        r"\brecess",
    ),
    _concept(
        "Pleural effusion",
        "effusion fluid liquid thorax empyema",
        r"""\b(?:pleur\w*(?:(?!pericard)[^.;:]){0,50}?\b(?:effusion\w*|fluid|efusion|liquid|empyema)
        |(?:effusion\w*|fluid|liquid)\b(?:(?!pericard)[^.;:]){0,60}?
          \b(?:pleur\w*|hemithora\w*|fissur\w*|both\ lung\w*)
        |(?:hydro|hemo|haemo|hydropneumo|chylo)thorax|empyema
        |(?<!pericardial\ )effusions?\b)""",
        r"""\bpericardi\w*(?!.*pleur)|\bknee|\bjoint|\babdom|\bperihepat|\bperirenal|\bperinephr
        |\bkidney|\bspleen|\bsubcapsular|\bpelvi""",
    ),
    _concept(
        "Hiatal hernia",
        "hiat hernia",
        r"\b(?:hiatal|hiatus\ herni\w*|(?:sliding|paraesophageal)[^.;]{0,20}herni\w*"
        r"|herni\w*[^.;]{0,30}\bhiatus|diaphragm\w*\ herni\w*[^.;]{0,80}gastric)",
    ),
    _concept(
        "Lymphadenopathy",
        "lymph lap adenopath",
        r"\b(?:lymph\ ?-?\ ?nod(?:e|es|al|ule|ules)\b(?!\ station)|laps?\b"
        r"|lymphadenopath\w*|lymphadenomegal\w*|adenopath\w*)",
        r"\b(?:intrapulmonary|subpleural|intraparenchymal)\ (?:lymph|ln)",
    ),
    _concept(
        "Emphysema",
        "physem phyzem bull bleb",
        r"\b(?:[ea]mph?y[sz]em\w*|bull(?:a|ae|as|ous)\b|blebs?\b)",
        r"""\b(?:subcutaneous|skin|soft\ tissue|mediastinal|muscular)\b[^.;]{0,40}emphysem
        |emphysem\w*[^.;]{0,40}\b(?:subcutaneous|skin|soft\ tissue|muscle)""",
    ),
    _concept(
        "Atelectasis",
        "tele thele collaps",
        r"\b(?<!fibro\ )(?<!fibro-)(?:sub\w*\ ?)?ath?ele[ck]?t\w*"
        r"|\bcollapsed?\b(?=[^.;]{0,30}\b(?:lung|lobe))",
    ),
    _concept(
        "Pulmonary fibrotic sequela",
        "sequel fibro scar pleuroparen pleuro-paren fibrous band",
        r"""\b(?:sequel\w*|fibro-?\s?ath?elec\w*|fibrotic\w*|fibrous|scar(?:s|ring)?\b
        |fibro(?!ad|id|li|my|sis)\w*|pleuro-?parenchymal|parenchymal\ bands?)""",
        r"""\b(?:ribs?|fractur\w*|vertebra\w*|liver|kidneys?|renal|spleen|sternum|clavicle|hepat\w*
        |lymph|laps?|myocard\w*|breast|mastectomy)\b""",
    ),
    _concept(
        "Lung nodule",
        "nodul",
        r"""\b\w*(?<!lymph\ )nodul(?:es?\b
        |ar\ (?:(?!ground|glass|consol|infil|thick|densit|and\b|or\b)[\w-]+\ ){0,2}
          (?:lesion|formation|structure|opacit|appearance|pattern|densit(?:y|ies)\b(?!\ incr))
          \w*)""",
        rf"\b{_OTHER_ORGAN}\b|\bpleural\ nodul|\bnodul[^.;]{{0,20}}\bin\ the\ pleura\b",
    ),
    _concept(
        "Lung opacity",
        "glass ggo opaci icy",
        r"\b(?:(?:ground|frosted)-?\s?-?glass\w*|ggo|icy\ (?:glass|densit)\w*|glass\ densit\w*"
        r"|(?<!acinar\ )(?<!nodular\ )opaci\w*)(?![\w\s-]{0,16}nodul)",
    ),
    _concept(
        "Lung opacity",
        "densit",
        r"\b(?:densit(?:y|ies)\ (?:increase|increment)\w*|increase[sd]?\ (?:in\ )?densit\w*"
        r"|dep[ae]nd[ae]nt\ densit\w*)",
        rf"""\b(?:metal\w*|soft\ tissue|operat\w*|chest\ wall|stern\w*|mesenter\w*|fatty|fat
        |adipose|bon[ey]\w*|sequel\w*|pleuro-?parenchymal|fibro\w*|sclero\w*|lytic|mediastin\w*
        |pericardi\w*|calcif\w*|consolid\w*|{_OTHER_ORGAN})\b""",
    ),
    _concept(
        "Consolidation",
        "consolid",
        r"\bconsolid\w*",
        r"\b(?:fractur\w*|callus|ground-?\s?glass\ consolid\w*)\b",
    ),
    _concept("Mosaic attenuation pattern", "mosaic", r"\bmosaic\w*"),
    _concept(
        "Peribronchial thickening",
        "bronch",
        r"""\bperibronc\w*(?:(?!\band\b)[^.;:,]){0,30}?\b(?:thick\w*|cuff\w*|sheath\w*)
        |\bthick\w*(?:\ (?:of|in|the|walls?|central|mild|and|at|level|interstitial))*
          \ peribronc\w*""",
    ),
    _concept(
        "Bronchiectasis",
        "ectasi ectati bronchi",
        r"\b(?:\w*bronchi?(?:ol)?[oi]?e[ck]ta\w*|bronchial\ (?:dilat|ectas)\w*"
        r"|(?:dilat\w*|ectas\w*)[^.;:,]{0,30}?\bbronch\w*|bronch\w*\ (?:are|is|were)\ dilat\w*)",
        r"\bno\ bronchial\ dilat",
    ),
    _concept(
        "Interlobular septal thickening",
        "sept",
        r"""\b(?:(?:inter|intra)?-?(?:lobular\ |lobar\ )?sept(?:al?|um|ae)?\w*[^.;:]{0,40}?
          \b(?:thick\w*|promin\w*|clarif\w*)
        |interseptal\ thick\w*
        |(?:thick|promin|clarif)\w*[^.;:]{0,40}?\b(?:interlob\w*|intralob\w*|sept(?:um|a|al|ae))\b)""",
        r"\b(?:nasal|interventricular|interatrial|gallbladder)\b",
    ),
)
"""In no particular order; a sentence may match several."""
