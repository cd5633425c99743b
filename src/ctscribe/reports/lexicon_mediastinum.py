"""How radiologists name findings of the heart, the vessels, the pleura and the mediastinum."""

from ctscribe.reports.concept import GAP, Concept, concept

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

MEDIASTINUM: tuple[Concept, ...] = (
    concept(
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
    concept(
        "Medical material",
        "prosthe",
        r"\b(?:endo)?prosthe(?:sis|ses|tic)\b",
        elsewhere=r"\b(?:breast|mammary|silicon)",
    ),
    concept(
        "Arterial wall calcification",
        "athero calcif calsif plaque",
        rf"""\b(?:{_VESSEL}(?:(?!{_NODE}){GAP}){{0,90}}?\b{_PLAQUE}
          (?!\W+(?:\w+\W+)?{_NODE}|\ in\ (?:the\ )?coronar)
        |{_PLAQUE}(?:(?!{_NODE}){GAP}){{0,100}}?\b{_VESSEL}{_SOUND})""",
        elsewhere=rf"{_NODE}|\bpleural\ plaque",
        home=r"\b(?:aort|arter|arc|vascul|vessel)",
    ),
    concept(
        "Coronary artery wall calcification",
        "athero calcif calsif plaque",
        rf"""\b(?:{_CORONARY}\b{GAP}{{0,90}}?\b{_PLAQUE}(?!\ in\ the\ (?:\w+\ )?aort)
        |{_PLAQUE}{GAP}{{0,110}}?\b{_CORONARY}\b{_SOUND})""",
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
          (?:(?!\b(?:normal|natural|ha[sv]e?\ not|pericard\w*)\b)(?:[^.;]|\.\d)){0,60}?
          \b(?:increase[ds]?|enlarge\w*|larger?|upper\ (?:limit|border)\w*|above|greater|big|wide\w*
          |dilat\w*)
        |(?:increase\w*|enlarge\w*)\ (?:in|of)\ (?:the\ )?(?:size\ of\ the\ )?
          (?:heart|cardiac|cardiothoracic|ctr|cto)\b
        |increased\ (?:heart\ size|cardiothoracic|ctr|cto|cti)\b)""",
        unless=r"\bpulmonary\ (?:artery|trunk)[^.;]{0,60}heart|epicardial\ fat",
    ),
    concept(
        "Pericardial effusion",
        "pericard",
        rf"""\b(?:pericardi(?:al|um|a)\b{GAP}{{0,50}}?\b{_EFFUSION}
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
        unless=r"""\bpericardi\w*(?!.*pleur)|\bknee|\bjoint|\bshoulder|\babdom|\bperihepat
        |\bperirenal|\bperinephr|\bkidney|\bspleen|\bsubcapsular|\bpelvi""",
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
        "lymph lap adenopath",
        r"""\b(?:(?<!intrapulmonary\ )(?<!subpleural\ )(?<!intraparenchymal\ )
          lymph(?:atic)?\ ?-?\ ?(?:nod(?:e|es|al|ule|ules)|gland)s?\b(?!\ station)|laps?\b
        |lymph[ao]denopath\w*|lymphadenomegal\w*|adenopath\w*|lymphonod\w*)""",
    ),
)
