"""How radiologists name the 18 findings: words, and contexts in which they mean something else.

`other_findings` has a lexicon of further findings.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

_GAP = r"[^.;:]"
"""A character between words that belong together."""
_LUNG = r"""(?:lungs?|pulmonary|lingul\w*|fissur\w*|subpleural|hemithora\w*|bronch\w*
    |ap(?:ex|ices|ical)|(?:upper|lower|middle)\ (?:lobes?|zones?))"""
_BELLY = r"""(?:spleen|(?:peri)?splenic|livers?|(?:peri|sub)?hepatic|kidneys?|(?:peri)?renal
    |pancrea\w*|(?:gall)?bladder\w*|bil(?:e|iary)|choledoch\w*|prostat\w*|uter\w*|ovar\w*|adnex\w*
    |gastric|stomach|colon\w*|bowel|intestin\w*|append\w*|(?:retro)?periton\w*|omental|omentum
    |(?:intra-?)?abdom\w*|pelvi[cs]|morison\w*|douglas|paracolic|subphrenic|umbilic\w*|inguin\w*|mesenter\w*)"""
OTHER_ORGAN = rf"""(?:{_BELLY}|thyroid\w*|adrenals?|surrenals?|breasts?|mammary|schmorl\w*|isthmus
    |skin|subcutaneous|thymus|thymic|parotid|vertebra\w*|muscle\w*|glands?|crus|goit(?:er|re)|axilla
    |glute\w*|hypodense|ventric\w*|atri\w*|(?:maxill\w*|paranasal|frontal|ethmoid\w*|sphenoid\w*)
    |sinus(?:es)?|orbit\w*|testi\w*)"""
_DEPOSIT = r"(?:atherom\w*|atheros?[ck]?lero\w*|cal[cs]if\w*|calcium(?!\ scor)|plaques?)\b"
_PLAQUE = rf"{_DEPOSIT}(?:\ (?:{_DEPOSIT}|changes))*+"
"""Possessive, so that patterns continue after the whole of "calcified plaques"."""
_VESSEL = r"""(?:aort(?:a|as|ic|o(?!pulm)\w*)(?!\ valve)|arch\b|arcus|supra-?aortic|brachiocephalic
    |subclavian|carotid|iliac|celiac|(?<!coronary\ )(?<!coroner\ )(?<!descending\ )(?<!circumflex\ )
    arter(?:y|ies|ial)\b|(?<!coronary\ )vascular|(?<!coronary\ )vessels?(?!\ coronar))"""
_CORONARY = r"(?:coronar\w*|coroner|lad|rca|cx|lcx|circumflex|left\ anterior\ descending)"
_SOUND = r"""(?!\w*\ (?:arter\w+\ |vessels?\ |walls?\ )?(?:(?:is|are|was|were)\ )?
    (?:normal|natural|open|free)\b)"""
"""The vessel is not called normal: "calcified aorta, coronary arteries are normal"."""
_NODE = r"\b(?:lymph|laps?\b)"
_EFFUSION = r"(?:ef+us+ions?|fluid|liquid)"
_TURN = r"\b(?:but|however|while|whereas|although|there)\b"
_JOINT = re.compile(r",|\band\b")
_BESIDE = re.compile(
    r"\b(?:(?:adjacent|next|close|contiguous|proximal)\s+to|near|beside|above|abutting|touching"
    r"|neighbou?ring|against|in\s+(?:the\s+)?(?:neighbou?rhood|vicinity)\s+of)"
    r"\s+(?:the\s+)?(?:\w+\s+)?\w+"
)
"""Organs named only to locate a place in the lung: "in the lower lobe, adjacent to the liver"."""


@final
@dataclass(frozen=True)
class Concept:
    """A way to name a finding."""

    finding: str
    literals: tuple[str, ...]
    """Every match contains one of these strings; sentences without any are skipped quickly."""
    pattern: re.Pattern[str]
    """The words that name the finding."""
    unless: re.Pattern[str] | None
    """Voids a match when it occurs in the same sentence."""
    elsewhere: re.Pattern[str] | None
    """Places where the words mean something else; one in the clause voids the match."""
    home: re.Pattern[str]
    """The finding's own place; between the same commas as the match, it outweighs ``elsewhere``."""

    def is_void(self, sentence: str, span: tuple[int, int], clause: tuple[int, int]) -> bool:
        """Whether the words at ``span`` of the lower-case ``sentence`` mean something else."""
        if self.unless and self.unless.search(sentence):
            return True
        if not self.elsewhere or not self.elsewhere.search(sentence, *clause):
            return False
        joints = [match.span() for match in _JOINT.finditer(sentence)]
        start = max((last for _, last in joints if last <= span[0]), default=0)
        end = min((first for first, _ in joints if first >= span[1]), default=len(sentence))
        part = (start, end)
        if not self.home.search(sentence, *part):
            return True
        here = _BESIDE.sub(" ", sentence[slice(*part)])
        return self.elsewhere.search(here) is not None


@final
class Lexicon:
    """The ways to name a set of findings."""

    def __init__(self, concepts: Sequence[Concept], lasting: Collection[str]) -> None:
        """``lasting`` findings never resolve: a history of one means that it is present."""
        self._concepts = tuple(concepts)
        self._hints = [(word, i) for i, each in enumerate(concepts) for word in each.literals]
        self.lasting = frozenset(lasting)

    def named_in(self, sentence: str) -> list[tuple[Concept, tuple[int, int]]]:
        """Each concept that the lower-case ``sentence`` names, with start and end of the words."""
        hinted = {number for word, number in self._hints if word in sentence}
        return [
            (self._concepts[number], match.span())
            for number in sorted(hinted)
            for match in self._concepts[number].pattern.finditer(sentence)
        ]


def concept(
    finding: str,
    literals: str,
    pattern: str,
    *,
    unless: str | None = None,
    elsewhere: str | None = None,
    home: str = rf"\b{_LUNG}\b",
) -> Concept:
    """Compiles a concept from verbose patterns, and literals separated by spaces."""
    return Concept(
        finding,
        tuple(literals.split()),
        re.compile(pattern, re.VERBOSE),
        re.compile(unless, re.VERBOSE) if unless else None,
        re.compile(elsewhere, re.VERBOSE) if elsewhere else None,
        re.compile(home, re.VERBOSE),
    )


_CONCEPTS = (
    concept(
        "Medical material",
        "cath catet cata tube pace peg gastrost suture sternotomy stent cannula clip port picc line"
        " electrode tracheostomy material valve wire screw drain icd metallic filter graft device"
        " staple coil lead",
        r"""\b(?:(?:\w*cath?[ea]th?er|drain|cannula|tracheostomy|pacemaker|pace|icd|electrode|clip|stent
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
    concept(
        "Medical material",
        "prosthe",
        r"\b(?:endo)?prosthe(?:sis|ses|tic)\b",
        elsewhere=r"\b(?:breast|mammary|silicon)",
    ),
    concept(
        "Arterial wall calcification",
        "athero calcif calsif calcium plaque",
        rf"""\b(?:{_VESSEL}(?:(?!{_NODE}){_GAP}){{0,90}}?\b{_PLAQUE}
          (?!\W+(?:\w+\W+)?{_NODE}|\ in\ (?:the\ )?coronar)
        |{_PLAQUE}(?:(?!{_NODE}){_GAP}){{0,100}}?\b{_VESSEL}{_SOUND})""",
        elsewhere=rf"{_NODE}|\bpleural\ plaque",
        home=r"\b(?:aort|arter|arc|vascul|vessel)",
    ),
    concept(
        "Coronary artery wall calcification",
        "athero calcif calsif calcium plaque",
        rf"""\b(?:{_CORONARY}\b(?:(?!\b(?:normal|natural|stent\w*[^.;:]*\baort)){_GAP}){{0,90}}?\b{_PLAQUE}
          (?!\ (?:(?:is|are)\ \w+\ )?in\ the\ (?:\w+\ )?aort)
        |{_PLAQUE}(?:(?!\bstent){_GAP}){{0,110}}?\b{_CORONARY}\b{_SOUND})""",
    ),
    concept(
        "Cardiomegaly",
        "cardiom heart cardiac",
        r"""\b(?:cardiome\w*|(?:enlarged|big|large)\ heart
        |cardiac\ enlargement|enlarged\ cardiac\ (?:silhouette|contour|shadow|size)\w*)""",
    ),
    concept(
        "Cardiomegaly",
        "heart cardi ctr cto cti",
        r"""\b(?:(?:heart|cardiac|cardiothoracic|cardio-thoracic|ctr|cto|cti)\b
          (?!\ (?:chamber|compartment|cavit))
          (?:(?!\b(?:normal(?!\ to\b)|natural|limits?|ha[sv]e?\ not|pericard\w*)\b)
            (?:[^.;]|\.\d)){0,60}?
          \b(?:increase[ds]?|enlarge\w*|larger?|above|exceeds?|greater|big|wide\w*|dilat\w*)\b
          (?!,?\ (?:but|though|yet|still)[^.,;]{0,20}\b(?:normal|physiological)\b)
        |(?:increase\w*|enlarge\w*)\ (?:in|of)\ (?:the\ )?(?:size\ of\ the\ )?
          (?:heart|cardiac|cardiothoracic|ctr|cto)\b
        |increased\ (?:heart\ size|cardiothoracic|ctr|cto|cti)\b)""",
        unless=r"\bpulmonary\ (?:artery|trunk)[^.;]{0,60}heart|epicardial\ fat",
    ),
    concept(
        "Pericardial effusion",
        "pericard",
        rf"""\b(?:pericardi(?:al|um|a)\b(?:(?!\b(?:normal|natural)\b|\|[^,]*pleur){_GAP}){{0,50}}?\b{_EFFUSION}
        |{_EFFUSION}\b(?:(?!\bpleur|{_TURN})[^.;:]){{0,130}}?\bpericardi(?:al|um|a)\b
        |ha?emopericard\w*)""",
        unless=r"\brecess",
    ),
    concept(
        "Pleural effusion",
        "pleur thorax empyema hemithora haemothora fissur",
        rf"""\b(?:pleur\w*(?:(?!pericard)[^.;:]){{0,50}}?\b(?:{_EFFUSION}|empyema)
        |pleural\s*(?:and|or|,|-|/)\s*pericardial\ {_EFFUSION}
        |{_EFFUSION}\b(?:(?!pericard|{_TURN})[^.;:]){{0,60}}?
          \b(?:pleur\w*|hemithora\w*|fissur\w*|both\ lung\w*)
        |(?:hydro|ha?emo|hydropneumo|ha?emopneumo|pyo|chylo)thorax|empyema)""",
    ),
    concept(
        "Pleural effusion",
        "ffusion fusion",
        r"\b(?<!pericardial\ )ef+us+ions?\b",
        unless=r"\bpericardi\w*(?!.*pleur)|\bsubcapsular",
        elsewhere=rf"""\b(?:{_BELLY}|perinephr\w*|scrot\w*|joints?|bursa\w*|(?:glen|coxo)\w*
        |knees?|shoulders?|hips?|elbows?|wrists?|ankles?|ascit\w*|mastoid\w*|middle\ ear)\b""",
        home=rf"\b(?:{_LUNG}|pleur\w*|thora\w*|hemithora\w*|chest)\b",
    ),
    concept(
        "Hiatal hernia",
        "hiat hyat herni",
        r"""\bh[iy]at(?:al|us)\ (?:\w+\ ){0,2}h(?:er)?ni\w*|\bh[iy]atal\ hern
        |\b(?:sliding|paraesophageal)[^.;]{0,20}herni\w*|\bherni\w*[^.;]{0,40}\bh[iy]at(?:us|al)
        |\bdiaphragm\w*\ herni\w*[^.;]{0,80}gastric""",
    ),
    concept(
        "Lymphadenopathy",
        "lymph lap adenopath node",
        r"""\b(?:(?<!intrapulmonary\ )(?<!subpleural\ )(?<!intraparenchymal\ )
          lymph(?:atic)?\ ?-?\ ?(?:noo?d(?:e|es|al|ule|ules)|gland)s?\b(?!\ station)|laps?\b
        |(?:mediastinal|(?:para|sub|pre)\w*(?:tracheal|carinal|vascular)|hilar|axillary)
          \ (?:(?:and|or)\ \w+\ )?nodes?\b
        |lymph[ao]denopath\w*|lymphadenomegal\w*|adenopath\w*|lymphonod\w*)""",
    ),
    concept(
        "Emphysema",
        "physem physam phyzem fizem fisem bull bleb",
        r"""\b(?:(?<!subcutaneous\ )(?<!skin\ )(?<!tissue\ )(?<!mediastinal\ )(?<!cutaneous\ )
          [ea]m(?:ph?|f)[yi][sz][ae]m\w*
          (?!(?:(?!\band\b)[^.;,]){0,40}\b(?:subcutaneous|skin|soft\ tissue|muscle))
        |bull(?:a|ae|as|ous)\b|blebs?\b)""",
        elsewhere=r"\b(?:gallbladder|bladder|orbit\w*|gastric|stomach)\b",
    ),
    concept(
        "Atelectasis",
        "tele thele atlect collaps",
        r"""\b(?<!fibro\ )(?<!fibro-)(?:sub\w*\ ?)?ath?ele[ck]?t\w*|\batlecta\w*
        |\bcollaps(?:ed?)?\b(?=[^.;]{0,30}\b(?:lung|lobe))
        |\b(?:lungs?|lobes?|segments?)\ (?:(?:is|are|was|were)\ (?:\w+\ )?collapsed|collapse\b)""",
    ),
    concept(
        "Pulmonary fibrotic sequela",
        "sequel sequal fibro scar pleuroparen pleuro-paren fibrous band",
        r"""\b(?:sequ[ea]l\w*|fibro-?\s?ath?elec\w*|fibrotic\w*|fibrous|scar(?:s|ring)?\b
        |fibro(?!ad|id|li|my|sis)\w*|pleuro-?parenchymal|(?:parenchymal|subpleural)\ bands?)""",
        elsewhere=rf"""\b(?:{_BELLY}|ribs?|(?<!no\ )fractur\w*|vertebra\w*|hepat\w*|sternum|clavicle
        |lymph|laps?|myocard\w*|breasts?|mastectomy|thyroid\w*|skin|subcutaneous|laparotom\w*|ca?esarean
        |(?:surgical|operation|incision\w*|post-?operative)\ scar\w*|incision\w*|chest\ wall
        |muscle\w*)\b""",
    ),
    concept(
        "Lung nodule",
        "nodul",
        r"""\b\w*(?<!lymph\ )nodul(?:es?|us|i)?\b(?!ar)
        |\b\w*nodular\ (?:(?:or|and)\ \w+\ lesion
          |(?:(?!ground|glass|consol|infil|thick|densit|and\b|or\b)[\w-]+\ ){0,2}
          (?:lesion|opacit|pattern))\w*""",
        unless=r"\bpleural\ nodul|\bnodul[^.;]{0,40}\bin\ the\ pleura\b",
        elsewhere=rf"\b{OTHER_ORGAN}\b",
    ),
    concept(
        "Lung opacity",
        "glass ggo icy crazy acinar",
        r"""\b(?:(?:ground|frosted)-?\s?-?glass\w*|ggos?\b|icy\ (?:glass|densit)\w*
          |glass\ densit\w*)
        (?!(?:(?!\b(?:or|and)\b)[\w\s-]){0,16}nodul)
        |\bcrazy[\s-]+pav\w*|\bacinar\ densit\w*""",
    ),
    concept(
        "Lung opacity",
        "opaci",
        r"""\b(?<!nodular\ )opaci(?:ty|ties|fied)\b
        (?!(?:(?!\b(?:or|and)\b)[\w\s-]){0,16}nodul)""",
        elsewhere=rf"\b(?:metal\w*|contrast|{OTHER_ORGAN})\b",
    ),
    concept(
        "Lung opacity",
        "densit",
        r"""\b(?:densit(?:y|ies)\ (?:increase|increment)\w*|increase[sd]?\ (?:in\ )?densit\w*
        |dep[ae]nd[ae]nt\ densit\w*)""",
        unless=r"""\b(?:sequel\w*|pleur(?:o|al)[\ -]?parenchymal|fibro\w*|sclero\w*|lytic|calcif\w*
        |consolid\w*)\b""",
        elsewhere=rf"""\b(?:metal\w*|soft\ tissue|operat\w*|chest\ wall|stern\w*|mesenter\w*|fatty
        |fat|adipose|bon[ey]\w*|mediastin\w*|pericardi\w*|{OTHER_ORGAN})\b""",
    ),
    concept(
        "Lung opacity",
        "linear",
        r"\blinear\ (?:(?:\w+\ ){0,2}densit(?:y|ies)\b|increases?\ in\ density)",
        elsewhere=rf"\b(?:fatty|fat|adipose|chest\ wall|mesenter\w*|trachea|{OTHER_ORGAN})\b",
    ),
    concept(
        "Consolidation",
        "consolid",
        r"\b(?<!ground-glass\ )(?<!ground\ glass\ )(?<!groundglass\ )consolid\w*",
        elsewhere=r"\b(?:callus|fractur\w*\ (?:\w+\ )?consolid|(?:of|in)\ the\ (?:\w+\ )?fractur)",
    ),
    concept("Mosaic attenuation pattern", "mosaic", r"\bmosaic\w*"),
    concept(
        "Peribronchial thickening",
        "bronc",
        r"""\bperibronc\w*(?:(?!\band\b)[^.;:,]){0,30}?\b(?:thick\w*|cuff\w*|sheath\w*)
        |\bthick\w*(?:\ (?:of|in|the|walls?|central|mild|and|at|level|interstitial))*
          \ peribronc\w*""",
    ),
    concept(
        "Bronchiectasis",
        "ectasi ectati ectazi bronchi airway",
        r"""\b(?:\w*bron[cs]h?i?(?:ol)?[oi]?e[ck]ta\w*|bronchial\ (?:dilat|ectas)\w*
        |(?:dilat\w*|ecta[st]\w*)
          (?:(?!\band\ (?:the\ |both\ )?(?:\w+\ )?bronch)[^.;:,]){0,30}?\bbronch\w*
        |bronch\w*\ (?:(?:lum\w+|structures?|(?:in|of)\ (?:\w+\ ){0,3}\w+)\ )?
          (?:are|is|were|was|appears?)\ (?:\w+\ ){0,2}?
          (?:dilat\w*|widened|wider?(?!\ open)|enlarged)
        |bronch\w*\ (?:lum\w+|cali[bp]\w*|diameters?|widths?)
          \ (?:ha[sv]e?|are|is|were|was)\ (?:\w+\ )?(?:increased|enlarged|dilated|wide)
        |bronchial\ (?:widening|enlargement)|dilated\ airways?
        |(?:widen\w*|enlarge\w*)\ (?:of\ |in\ )?(?:the\ )?(?:(?!peri|and\b)\w+\ ){0,2}?
          (?:bronch|airway)\w*)""",
    ),
    concept(
        "Interlobular septal thickening",
        "sept kerley",
        r"""\b(?:(?:inter|intra)?-?(?:lobular\ |lobar\ )?sept(?:al?|um|ae)?\w*[^.;:]{0,40}?
          \b(?:thick\w*|promin\w*|clarif\w*)
        |interseptal\ thick\w*|kerley\b|septal\ lines?\b
        |(?:thick|promin|clarif)\w*[^.;:]{0,40}?\b(?:interlob\w*|intralob\w*|sept(?:um|a|al|ae))\b)""",
        elsewhere=rf"\b(?:nasal|interventricular|interatrial|cysts?|{_BELLY})\b",
    ),
)
"""In no particular order; a sentence may match several."""
_LASTING = frozenset(
    {
        "Medical material",
        "Arterial wall calcification",
        "Coronary artery wall calcification",
        "Hiatal hernia",
        "Emphysema",
        "Pulmonary fibrotic sequela",
        "Bronchiectasis",
    }
)

EIGHTEEN = Lexicon(_CONCEPTS, _LASTING)
"""The lexicon of CT-RATE's 18 findings."""
