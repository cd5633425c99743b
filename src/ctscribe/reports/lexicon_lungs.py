"""How radiologists name findings of the lungs and the bronchi."""

from ctscribe.reports.concept import OTHER_ORGAN, Concept, concept

LUNGS: tuple[Concept, ...] = (
    concept(
        "Emphysema",
        "physem physam phyzem bull bleb",
        r"""\b(?:(?<!subcutaneous\ )(?<!skin\ )(?<!tissue\ )(?<!mediastinal\ )(?<!cutaneous\ )
          [ea]mph?[yi][sz][ae]m\w*
          (?!(?:(?!\band\b)[^.;,]){0,40}\b(?:subcutaneous|skin|soft\ tissue|muscle))
        |bull(?:a|ae|as|ous)\b|blebs?\b)""",
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
        "sequel fibro scar pleuroparen pleuro-paren fibrous band",
        r"""\b(?:sequel\w*|fibro-?\s?ath?elec\w*|fibrotic\w*|fibrous|scar(?:s|ring)?\b
        |fibro(?!ad|id|li|my|sis)\w*|pleuro-?parenchymal|(?:parenchymal|subpleural)\ bands?)""",
        elsewhere=r"""\b(?:ribs?|(?<!no\ )fractur\w*|vertebra\w*|liver|kidneys?|renal|spleen
        |sternum|clavicle|hepat\w*|lymph|laps?|myocard\w*|breast|mastectomy)\b""",
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
        "glass ggo opaci icy",
        r"""\b(?:(?:ground|frosted)-?\s?-?glass\w*|ggos?\b|icy\ (?:glass|densit)\w*|glass\ densit\w*
        |(?<!acinar\ )(?<!nodular\ )opaci\w*)
        (?!(?:(?!\b(?:or|and)\b)[\w\s-]){0,16}nodul)""",
    ),
    concept(
        "Lung opacity",
        "densit",
        r"""\b(?:densit(?:y|ies)\ (?:increase|increment)\w*|increase[sd]?\ (?:in\ )?densit\w*
        |dep[ae]nd[ae]nt\ densit\w*)""",
        unless=r"""\b(?:sequel\w*|pleuro-?parenchymal|fibro\w*|sclero\w*|lytic|calcif\w*
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
        "ectasi ectati ectazi bronchi",
        r"""\b(?:\w*bron[cs]h?i?(?:ol)?[oi]?e[ck]ta\w*|bronchial\ (?:dilat|ectas)\w*
        |(?:dilat\w*|ecta[st]\w*)[^.;:,]{0,30}?\bbronch\w*
        |bronch\w*\ (?:are|is|were)\ (?:not\ )?dilat\w*)""",
    ),
    concept(
        "Interlobular septal thickening",
        "sept kerley",
        r"""\b(?:(?:inter|intra)?-?(?:lobular\ |lobar\ )?sept(?:al?|um|ae)?\w*[^.;:]{0,40}?
          \b(?:thick\w*|promin\w*|clarif\w*)
        |interseptal\ thick\w*|kerley\b|septal\ lines?\b
        |(?:thick|promin|clarif)\w*[^.;:]{0,40}?\b(?:interlob\w*|intralob\w*|sept(?:um|a|al|ae))\b)""",
        elsewhere=r"\b(?:nasal|interventricular|interatrial|gallbladder)\b",
    ),
)
