"""The objects drawn in a scan → the report that states them.

In: `Drawing`s by finding. Out: Findings of 70–130 words, with stock sentences about normal organs;
Impression of 5–35 words; and the sentence that states each finding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from ctscribe.phantom.drawing import Drawing
from ctscribe.phantom.phrases import ALL_NORMAL, CLOSING, CONCLUDED, DENIED, NORMAL, STATED, Choices

MAX_FINDINGS_WORDS = 130
MAX_IMPRESSION_WORDS = 35
LUNG_ORDER = (
    "Emphysema",
    "Mosaic attenuation pattern",
    "Lung opacity",
    "Consolidation",
    "Interlobular septal thickening",
    "Atelectasis",
    "Pulmonary fibrotic sequela",
    "Bronchiectasis",
    "Peribronchial thickening",
    "Lung nodule",
)
COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six")
DROPPED_FIRST = (
    "contrast",
    "abdomen",
    "bones",
    "oesophagus",
    "vessels",
    "airway",
    "denied",
    "lungs",
    "pleura",
    "pericardium",
    "heart",
    "nodes",
    "effusions",
)
"""Stock sentences in the order in which a report that is too long drops them."""


@final
@dataclass(frozen=True)
class PhantomReport:
    """A report and, per finding, the sentence that states it."""

    findings: str
    impression: str
    sentences: Mapping[str, str]


def write_report(
    rng: np.random.Generator, drawings: Mapping[str, Sequence[Drawing]], *, contrast: bool
) -> PhantomReport:
    """Writes Findings (70–130 words) and Impression (5–35 words).

    Args:
        rng: Chooses among paraphrases.
        drawings: Objects of each finding that is present, largest first.
        contrast: Whether a contrast agent was given.
    """
    for terse in (False, True):
        stated = {f: _state(rng, f, items, terse=terse) for f, items in drawings.items()}
        parts = _sections(rng, stated, contrast=contrast)
        for slot in DROPPED_FIRST:
            if _num_words(parts.values()) <= MAX_FINDINGS_WORDS:
                break
            parts.pop(slot, None)
        if _num_words(parts.values()) <= MAX_FINDINGS_WORDS:
            break
    findings = " ".join(part for part in parts.values() if part)
    return PhantomReport(findings, _conclude(rng, drawings), stated)


def _num_words(sentences: Iterable[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def _sections(
    rng: np.random.Generator, stated: Mapping[str, str], *, contrast: bool
) -> dict[str, str]:
    def normal(slot: str) -> str:
        return _choose(rng, NORMAL[slot])

    parts = {"airway": normal("airway"), "Medical material": stated.get("Medical material", "")}
    if not contrast and rng.random() < 0.5:
        parts["contrast"] = normal("contrast")
    parts["Cardiomegaly"] = stated.get("Cardiomegaly", "")
    slot = "vessels" if "Cardiomegaly" in stated else "heart"
    parts[slot] = normal(slot)
    for finding in ("Arterial wall calcification", "Coronary artery wall calcification"):
        parts[finding] = stated.get(finding, "")
    pleura, heart = "Pleural effusion" in stated, "Pericardial effusion" in stated
    if not pleura and not heart:
        parts["effusions"] = normal("both effusions")
    else:
        parts["Pericardial effusion"] = stated.get("Pericardial effusion", "")
        if not heart:
            parts["pericardium"] = normal("pericardium")
    for slot, finding in (("oesophagus", "Hiatal hernia"), ("nodes", "Lymphadenopathy")):
        parts[finding] = stated.get(finding, "")
        if finding not in stated:
            parts[slot] = normal(slot)
    lung = [stated[finding] for finding in LUNG_ORDER if finding in stated]
    if not lung:
        parts["lungs"] = normal("lungs")
    parts["lung findings"] = " ".join(lung)
    parts["denied"] = _deny(rng, stated)
    parts["Pleural effusion"] = stated.get("Pleural effusion", "")
    if heart and not pleura:
        parts["pleura"] = normal("pleura")
    return {**parts, "abdomen": normal("abdomen"), "bones": normal("bones")}


def _deny(rng: np.random.Generator, stated: Mapping[str, str]) -> str:
    absent = [name for finding, name in DENIED.items() if finding not in stated][:3]
    if not absent:
        return ""
    names = absent[0] if len(absent) == 1 else ", ".join(absent[:-1]) + " or " + absent[-1]
    if rng.random() < 0.85:
        return f"No {names} is seen in the lungs."
    return f"{names[0].upper()}{names[1:]} was not observed in either lung."


def _conclude(rng: np.random.Generator, drawings: Mapping[str, Sequence[Drawing]]) -> str:
    told = [
        _fill(CONCLUDED[finding], drawings[finding]) for finding in CONCLUDED if finding in drawings
    ]
    if not drawings:
        return _choose(rng, ALL_NORMAL)
    chosen: list[str] = []
    for sentence in told:
        if _num_words([*chosen, sentence]) > MAX_IMPRESSION_WORDS - 8:
            break
        chosen.append(sentence)
    if rng.random() < 0.3 or _num_words(chosen) < 5:
        chosen.append(_choose(rng, CLOSING))
    return " ".join(chosen)


def _state(rng: np.random.Generator, finding: str, items: Sequence[Drawing], *, terse: bool) -> str:
    choices = STATED[_key(rng, finding, items)]
    template = _choose(rng, choices)
    if terse:
        template = min((text for _, text in choices), key=lambda text: len(text.split()))
    return _fill(template, items, terse=terse)


def _key(rng: np.random.Generator, finding: str, items: Sequence[Drawing]) -> str:
    first = items[0]
    if finding in ("Medical material", "Emphysema", "Pulmonary fibrotic sequela"):
        return first.kind
    if finding == "Lymphadenopathy":
        return "one node" if len(items) == 1 else "nodes"
    if finding == "Lung nodule":
        if len(items) == 1:
            return "one nodule"
        small = first.size_mm <= 6 and rng.random() < 0.6
        return "small nodules" if small else "nodules"
    return finding


def _fill(template: str, items: Sequence[Drawing], *, terse: bool = False) -> str:
    first = max(items, key=lambda item: item.size_mm)
    sides = {item.side for item in items}
    both = len(sides) > 1
    side = "both" if both else first.side
    second = [item.size_mm for item in items if item.side != first.side]
    site = _sites(items[:1] if terse else items)
    lungs = "both lungs" if both else f"the {side} lung"
    return template.format(
        article="An" if site[:1] in "aeiou" else "A",
        size=f"{first.size_mm:g}",
        short=f"{first.short_mm or max(3, round(0.8 * first.size_mm)):g}",
        side=first.side,
        where=lungs if terse else _where(items),
        largest=_lobe(first),
        lungs=lungs,
        site=site,
        type=" calcified" if first.kind == "calcified" else "",
        count=COUNTS[min(len(items), 6)],
        few="several" if len(items) > 2 else "two",
        plural="Nodules" if len(items) > 1 else "Nodule",
        amount="Minimal" if first.size_mm < 10 else "Marked",
        apex="both apices" if both else f"the {side} apex",
        bilateral="Bilateral" if both else f"{side.capitalize()}-sided",
        lateral="bilateral" if both else f"{side}-sided",
        flank="both sides" if both else f"the {side}",
        deeper=f" on the {first.side} and {max(second):g} mm on the other side" if second else "",
    )


def _lobe(item: Drawing) -> str:
    return f"the {item.side} {item.lobe}" if item.lobe else f"the {item.side} lung"


def _where(items: Sequence[Drawing]) -> str:
    """Lobes in the order of the objects; the same lobe of both sides as "both lower lobes"."""
    sides: dict[str, list[str]] = {}
    for item in items:
        known = sides.setdefault(item.lobe or "lung", [])
        if item.side not in known:
            known.append(item.side)
    if sum(len(known) for known in sides.values()) > 3:
        return (
            "both lungs" if len({item.side for item in items}) > 1 else f"the {items[0].side} lung"
        )
    return _listed(
        f"both {lobe}s" if len(known) > 1 else f"the {known[0]} {lobe}"
        for lobe, known in sides.items()
    )


def _sites(items: Sequence[Drawing]) -> str:
    names = list(dict.fromkeys(item.site for item in items))
    if items[0].finding == "Coronary artery wall calcification":
        names = [name.removesuffix(" coronary") for name in names]
        return _listed(names) + (" coronary artery" if len(names) == 1 else " coronary arteries")
    return _listed(names)


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _choose(rng: np.random.Generator, choices: Choices) -> str:
    shares = np.cumsum([share for share, _ in choices])
    return choices[min(int(np.searchsorted(shares, rng.random())), len(choices) - 1)][1]
