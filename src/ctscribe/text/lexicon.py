"""How radiologists name the 18 findings: the words, and what makes them mean another thing."""

import re
from dataclasses import dataclass
from typing import final

_GAP = r"[^.;:]"
"""A character between words that belong together."""
_LUNG = r"""(?:lungs?|pulmonary|lingul\w*|fissur\w*|subpleural|hemithora\w*|bronch\w*
    |ap(?:ex|ices|ical)|(?:upper|lower|middle)\ (?:lobes?|zones?))"""
_OTHER_ORGAN = r"""(?:thyroids?|adrenals?|surrenals?|breast|mammary|spleen|splenic|liver|hepatic
    |kidneys?|renal|pancrea\w*|bladder|prostat\w*|schmorl\w*|isthmus|skin|subcutaneous|uter\w*|ovar\w*
    |gastric|stomach|colon\w*|periton\w*|omental|omentum|thymus|thymic|parotid|vertebra\w*
    |muscle\w*|glands?|crus|goit(?:er|re)|axilla|hypodense|abdominal|ventric\w*|atri\w*)"""
_DEPOSIT = r"(?:atherom\w*|atheros?[ck]?lero\w*|cal[cs]if\w*|plaques?)\b"
_PLAQUE = rf"{_DEPOSIT}(?:\ (?:{_DEPOSIT}|changes))*+"
"""Never given back in part, so that what follows is read after "calcified plaques" as a whole."""
_VESSEL = r"""(?:aort(?:a|as|ic|o(?!pulm)\w*)(?!\ valve)|arch\b|arcus|supra-?aortic|brachiocephalic
    |subclavian|carotid|iliac|celiac|(?<!coronary\ )(?<!descending\ )(?<!circumflex\ )
    arter(?:y|ies|ial)\b|(?<!coronary\ )vascular|(?<!coronary\ )vessels?(?!\ coronar))"""
_CORONARY = r"(?:coronar\w*|lad|rca|cx|lcx|circumflex|left\ anterior\ descending)"
_SOUND = r"""(?!\w*\ (?:arter\w+\ |vessels?\ |walls?\ )?(?:(?:is|are|was|were)\ )?
    (?:normal|natural|open|free)\b)"""
"""Not said of the vessel itself: "calcified aorta, coronary arteries are normal"."""
_NODE = r"\b(?:lymph|laps?\b)"
_EFFUSION = r"(?:ef+us+ions?|fluid|liquid)"
_TURN = r"\b(?:but|however|while|whereas|although|there)\b"
_JOINT = re.compile(r",|\band\b")


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
    elsewhere: re.Pattern[str] | None
    """Places outside the finding's own; one voids a match in its clause or after it was named."""
    home: re.Pattern[str]
    """The finding's own place; named between the same commas, it outweighs ``elsewhere``."""

    def is_void(self, sentence: str, span: tuple[int, int], clause: tuple[int, int]) -> bool:
        """Whether the lower-case ``sentence`` speaks of another thing at ``span``."""
        if self.unless and self.unless.search(sentence):
            return True
        if not self.elsewhere or not self.elsewhere.search(sentence, *clause):
            return False
        joints = [match.span() for match in _JOINT.finditer(sentence)]
        start = max((last for _, last in joints if last <= span[0]), default=0)
        end = min((first for first, _ in joints if first >= span[1]), default=len(sentence))
        part = (start, end)
        at_home = self.home.search(sentence, *part) and not self.elsewhere.search(sentence, *part)
        return not at_home


def _concept(
    finding: str,
    literals: str,
    pattern: str,
    *,
    unless: str | None = None,
    elsewhere: str | None = None,
    home: str = rf"\b{_LUNG}\b",
) -> Concept:
    """Compiles a concept from verbose patterns and literals parted by spaces."""
    return Concept(
        finding,
        tuple(literals.split()),
        re.compile(pattern, re.VERBOSE),
        re.compile(unless, re.VERBOSE) if unless else None,
        re.compile(elsewhere, re.VERBOSE) if elsewhere else None,
        re.compile(home, re.VERBOSE),
    )


CONCEPTS: tuple[Concept, ...] = (
    _concept(
        "Medical material",
        "catheter tube pace peg gastrost suture sternotomy stent cannula clip port picc line"
        " electrode tracheostomy material valve wire screw drain icd metallic filter graft device"
        " staple coil lead",
        r"""\b(?:(?:\w*catheter|drain|cannula|tracheostomy|pacemaker|pace|icd|electrode|clip|stent
          |graft|screw|sternotomy|suture|picc|staple
          |valve\ (?:replacement|prosthesis)|(?:artificial|metallic|mechanical)\ (?:\w+\ )?valve)s?
        |(?:surgical|operation|operative|fixation|osteosynthesis|metallic|medical|orthopedic)
          \ (?:material|suture|clip|densit|wire|implant|hardware|device|plate|coil|rod)\w*
        |(?:endotracheal|tracheostomy|intubation|nasogastric|orogastric|chest|thora(?:x|cic)|drainage
          |feeding|tracheal|ng)\ tubes?
        |(?:port|vascular\ access)\ (?:chamber|reservoir|device)
        |(?:venous|chest|wall|infusion)\ port\b|port-?a-?cath
        |(?:sternal|sternotomy|cerclage)\ wires?|(?:vena\ cava|ivc)\ filter|peg\ \w+|gastrostomy
        |central\ (?:venous\ )?(?:line|access)s?|(?:pacing|pacemaker|icd)\ (?:lead|wire)s?
        |emboli[sz]ation\ (?:coil|material)s?
        |(?:pleural|pigtail|thoracic)\ drain\w*)\b""",
    ),
    _concept(
        "Medical material",
        "prosthe",
        r"\b(?:endo)?prosthe(?:sis|ses|tic)\b",
        elsewhere=r"\b(?:breast|mammary|silicon)",
    ),
    _concept(
        "Arterial wall calcification",
        "athero calcif calsif plaque",
        rf"""\b(?:{_VESSEL}(?:(?!{_NODE}){_GAP}){{0,90}}?\b{_PLAQUE}
          (?!\W+(?:\w+\W+)?{_NODE}|\ in\ (?:the\ )?coronar)
        |{_PLAQUE}(?:(?!{_NODE}){_GAP}){{0,100}}?\b{_VESSEL}{_SOUND})""",
        elsewhere=rf"{_NODE}|\bpleural\ plaque",
        home=r"\b(?:aort|arter|arc|vascul|vessel)",
    ),
    _concept(
        "Coronary artery wall calcification",
        "athero calcif calsif plaque",
        rf"""\b(?:{_CORONARY}\b{_GAP}{{0,90}}?\b{_PLAQUE}(?!\ in\ the\ (?:\w+\ )?aort)
        |{_PLAQUE}{_GAP}{{0,110}}?\b{_CORONARY}\b{_SOUND})""",
    ),
    _concept(
        "Cardiomegaly",
        "cardiom heart cardiac",
        r"""\b(?:cardiome\w*|(?:enlarged|big|large)\ heart
        |cardiac\ enlargement|enlarged\ cardiac\ (?:silhouette|contour|shadow|size)\w*)""",
    ),
    _concept(
        "Cardiomegaly",
        "heart cardi ctr cto cti",
        r"""\b(?:(?:heart|cardiac|cardiothoracic|cardio-thoracic|ctr|cto|cti)\b
          (?!\ (?:chamber|compartment|cavit))
          (?:(?!\b(?:normal|natural|ha[sv]e?\ not|pericard\w*)\b)(?:[^.;]|\.\d)){0,60}?
          \b(?:increase[ds]?|enlarge\w*|larger?|upper\ (?:limit|border)\w*|above|greater|big|wide\w*
          |dilat\w*)
        |(?:increase\w*|enlarge\w*)\ (?:in|of)\ (?:the\ )?(?:size\ of\ the\ )?
          (?:heart|cardiac|cardiothoracic|ctr|cto)\b
        |increased\ (?:heart\ size|cardiothoracic|ctr|cto|cti)\b)""",
        unless=r"\bpulmonary\ (?:artery|trunk)[^.;]{0,60}heart|epicardial\ fat",
    ),
    _concept(
        "Pericardial effusion",
        "pericard",
        rf"""\b(?:pericardi(?:al|um|a)\b{_GAP}{{0,50}}?\b{_EFFUSION}
        |{_EFFUSION}\b(?:(?!\bpleur|{_TURN})[^.;:]){{0,130}}?\bpericardi(?:al|um|a)\b
        |ha?emopericard\w*)""",
        unless=r"\brecess",
    ),
    _concept(
        "Pleural effusion",
        "pleur thorax empyema hemithora haemothora fissur",
        rf"""\b(?:pleur\w*(?:(?!pericard)[^.;:]){{0,50}}?\b(?:{_EFFUSION}|empyema)
        |pleural\s*(?:and|or|,|-|/)\s*pericardial\ {_EFFUSION}
        |{_EFFUSION}\b(?:(?!pericard|{_TURN})[^.;:]){{0,60}}?
          \b(?:pleur\w*|hemithora\w*|fissur\w*|both\ lung\w*)
        |(?:hydro|ha?emo|hydropneumo|ha?emopneumo|pyo|chylo)thorax|empyema)""",
    ),
    _concept(
        "Pleural effusion",
        "ffusion fusion",
        r"\b(?<!pericardial\ )ef+us+ions?\b",
        unless=r"""\bpericardi\w*(?!.*pleur)|\bknee|\bjoint|\bshoulder|\babdom|\bperihepat
        |\bperirenal|\bperinephr|\bkidney|\bspleen|\bsubcapsular|\bpelvi""",
    ),
    _concept(
        "Hiatal hernia",
        "hiat hyat herni",
        r"""\bh[iy]at(?:al|us)\ (?:\w+\ ){0,2}h(?:er)?ni\w*|\bh[iy]atal\ hern
        |\b(?:sliding|paraesophageal)[^.;]{0,20}herni\w*|\bherni\w*[^.;]{0,40}\bh[iy]at(?:us|al)
        |\bdiaphragm\w*\ herni\w*[^.;]{0,80}gastric""",
    ),
    _concept(
        "Lymphadenopathy",
        "lymph lap adenopath",
        r"""\b(?:(?<!intrapulmonary\ )(?<!subpleural\ )(?<!intraparenchymal\ )
          lymph(?:atic)?\ ?-?\ ?(?:nod(?:e|es|al|ule|ules)|gland)s?\b(?!\ station)|laps?\b
        |lymph[ao]denopath\w*|lymphadenomegal\w*|adenopath\w*|lymphonod\w*)""",
    ),
    _concept(
        "Emphysema",
        "physem physam phyzem bull bleb",
        r"""\b(?:(?<!subcutaneous\ )(?<!skin\ )(?<!tissue\ )(?<!mediastinal\ )(?<!cutaneous\ )
          [ea]mph?[yi][sz][ae]m\w*
          (?!(?:(?!\band\b)[^.;,]){0,40}\b(?:subcutaneous|skin|soft\ tissue|muscle))
        |bull(?:a|ae|as|ous)\b|blebs?\b)""",
    ),
    _concept(
        "Atelectasis",
        "tele thele atlect collaps",
        r"""\b(?<!fibro\ )(?<!fibro-)(?:sub\w*\ ?)?ath?ele[ck]?t\w*|\batlecta\w*
        |\bcollaps(?:ed?)?\b(?=[^.;]{0,30}\b(?:lung|lobe))
        |\b(?:lungs?|lobes?|segments?)\ (?:(?:is|are|was|were)\ (?:\w+\ )?collapsed|collapse\b)""",
    ),
    _concept(
        "Pulmonary fibrotic sequela",
        "sequel fibro scar pleuroparen pleuro-paren fibrous band",
        r"""\b(?:sequel\w*|fibro-?\s?ath?elec\w*|fibrotic\w*|fibrous|scar(?:s|ring)?\b
        |fibro(?!ad|id|li|my|sis)\w*|pleuro-?parenchymal|(?:parenchymal|subpleural)\ bands?)""",
        elsewhere=r"""\b(?:ribs?|(?<!no\ )fractur\w*|vertebra\w*|liver|kidneys?|renal|spleen
        |sternum|clavicle|hepat\w*|lymph|laps?|myocard\w*|breast|mastectomy)\b""",
    ),
    _concept(
        "Lung nodule",
        "nodul",
        r"""\b\w*(?<!lymph\ )nodul(?:es?|us|i)?\b(?!ar)
        |\b\w*nodular\ (?:(?:or|and)\ \w+\ lesion
          |(?:(?!ground|glass|consol|infil|thick|densit|and\b|or\b)[\w-]+\ ){0,2}
          (?:lesion|opacit|pattern))\w*""",
        unless=r"\bpleural\ nodul|\bnodul[^.;]{0,40}\bin\ the\ pleura\b",
        elsewhere=rf"\b{_OTHER_ORGAN}\b",
    ),
    _concept(
        "Lung opacity",
        "glass ggo opaci icy",
        r"""\b(?:(?:ground|frosted)-?\s?-?glass\w*|ggos?\b|icy\ (?:glass|densit)\w*|glass\ densit\w*
        |(?<!acinar\ )(?<!nodular\ )opaci\w*)
        (?!(?:(?!\b(?:or|and)\b)[\w\s-]){0,16}nodul)""",
    ),
    _concept(
        "Lung opacity",
        "densit",
        r"""\b(?:densit(?:y|ies)\ (?:increase|increment)\w*|increase[sd]?\ (?:in\ )?densit\w*
        |dep[ae]nd[ae]nt\ densit\w*)""",
        unless=r"""\b(?:sequel\w*|pleuro-?parenchymal|fibro\w*|sclero\w*|lytic|calcif\w*
        |consolid\w*)\b""",
        elsewhere=rf"""\b(?:metal\w*|soft\ tissue|operat\w*|chest\ wall|stern\w*|mesenter\w*|fatty
        |fat|adipose|bon[ey]\w*|mediastin\w*|pericardi\w*|{_OTHER_ORGAN})\b""",
    ),
    _concept(
        "Lung opacity",
        "linear",
        r"\blinear\ (?:(?:\w+\ ){0,2}densit(?:y|ies)\b|increases?\ in\ density)",
        elsewhere=rf"\b(?:fatty|fat|adipose|chest\ wall|mesenter\w*|trachea|{_OTHER_ORGAN})\b",
    ),
    _concept(
        "Consolidation",
        "consolid",
        r"\b(?<!ground-glass\ )(?<!ground\ glass\ )(?<!groundglass\ )consolid\w*",
        elsewhere=r"\b(?:callus|fractur\w*\ (?:\w+\ )?consolid|(?:of|in)\ the\ (?:\w+\ )?fractur)",
    ),
    _concept("Mosaic attenuation pattern", "mosaic", r"\bmosaic\w*"),
    _concept(
        "Peribronchial thickening",
        "bronc",
        r"""\bperibronc\w*(?:(?!\band\b)[^.;:,]){0,30}?\b(?:thick\w*|cuff\w*|sheath\w*)
        |\bthick\w*(?:\ (?:of|in|the|walls?|central|mild|and|at|level|interstitial))*
          \ peribronc\w*""",
    ),
    _concept(
        "Bronchiectasis",
        "ectasi ectati ectazi bronchi",
        r"""\b(?:\w*bron[cs]h?i?(?:ol)?[oi]?e[ck]ta\w*|bronchial\ (?:dilat|ectas)\w*
        |(?:dilat\w*|ecta[st]\w*)[^.;:,]{0,30}?\bbronch\w*
        |bronch\w*\ (?:are|is|were)\ (?:not\ )?dilat\w*)""",
    ),
    _concept(
        "Interlobular septal thickening",
        "sept kerley",
        r"""\b(?:(?:inter|intra)?-?(?:lobular\ |lobar\ )?sept(?:al?|um|ae)?\w*[^.;:]{0,40}?
          \b(?:thick\w*|promin\w*|clarif\w*)
        |interseptal\ thick\w*|kerley\b|septal\ lines?\b
        |(?:thick|promin|clarif)\w*[^.;:]{0,40}?\b(?:interlob\w*|intralob\w*|sept(?:um|a|al|ae))\b)""",
        elsewhere=r"\b(?:nasal|interventricular|interatrial|gallbladder)\b",
    ),
)
"""In no particular order; a sentence may match several."""
