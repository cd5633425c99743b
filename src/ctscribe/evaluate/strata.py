"""Groups of scans, read from the references alone, never from what a model wrote."""

import re
from collections.abc import Sequence
from functools import partial

from ctscribe.reports.sizes import largest_nodule_mm
from ctscribe.rows import ReportedRow

NODULE = "Lung nodule"

_POST_OPERATIVE = re.compile(
    r"\b(?:post-?\s?op|operated|operation|(?:lob|segment|pneumon|thym|mast)ectomy|sternotomy"
    r"|resection|by-?pass)",
    re.IGNORECASE,
)
_METAL = r"\b(?:metal|pace-?maker|prosthe|implant|electrode|screw|valve|clip)\w*"
_ARTEFACT = r"\bart[ei]fact\w*"
_METAL_ARTEFACT = re.compile(
    rf"{_METAL}[^.;]{{0,60}}{_ARTEFACT}|{_ARTEFACT}[^.;]{{0,60}}{_METAL}", re.IGNORECASE
)

ORDER = {
    "nodule size": ("none", "< 6 mm", "6–8 mm", "> 8–30 mm", "> 30 mm", "unmeasured"),
    "tiny nodule": ("< 3 mm",),
    "surgery": ("none stated", "post-operative"),
    "artefact": ("none stated", "metal artefact"),
    "age": ("< 40", "40–59", "60–74", "≥ 75"),
}
"""Strata in the order of tables; those of other groupings are alphabetical."""


def nodule_stratum(has_nodule: bool, size_mm: float | None) -> str:
    """Which size group a reference belongs to, by its largest current lung nodule in mm.

    The limits are Fleischner's for solid nodules (MacMahon et al. 2017) and 30 mm, beyond which
    one speaks of a mass.
    """
    if not has_nodule:
        return "none"
    if size_mm is None:
        return "unmeasured"
    if size_mm < 6:
        return "< 6 mm"
    if size_mm <= 8:
        return "6–8 mm"
    return "> 8–30 mm" if size_mm <= 30 else "> 30 mm"


def strata_of(
    studies: Sequence[ReportedRow], texts: Sequence[str], has_nodule: Sequence[bool]
) -> dict[str, dict[str, list[int]]]:
    """Groups scans by what their reference and metadata say.

    Args:
        studies: One row per scan.
        texts: The reference report of each.
        has_nodule: Whether the reference has a lung nodule.

    Returns:
        Grouping → stratum → indices into ``studies``, as in `ORDER`; a scan without the datum is
        left out.
    """
    groups: dict[str, dict[str, list[int]]] = {}

    def add(grouping: str, stratum: str | None, index: int) -> None:
        if stratum is not None:
            groups.setdefault(grouping, {}).setdefault(stratum, []).append(index)

    for index, (study, text, nodule) in enumerate(zip(studies, texts, has_nodule, strict=True)):
        size_mm = largest_nodule_mm(text) if nodule else None
        add("nodule size", nodule_stratum(nodule, size_mm), index)
        add("tiny nodule", "< 3 mm" if size_mm is not None and size_mm < 3 else None, index)
        add("surgery", "post-operative" if _POST_OPERATIVE.search(text) else "none stated", index)
        artefact = "metal artefact" if _METAL_ARTEFACT.search(text) else "none stated"
        add("artefact", artefact, index)
        add("scanner", study.manufacturer, index)
        add("sex", study.sex, index)
        add("age", _age_band(study.age_years), index)
    return {
        grouping: {name: strata[name] for name in sorted(strata, key=partial(_place, grouping))}
        for grouping, strata in groups.items()
    }


def _place(grouping: str, stratum: str) -> tuple[int, str]:
    order = ORDER.get(grouping, ())
    return (order.index(stratum) if stratum in order else len(order)), stratum


def _age_band(age_years: float | None) -> str | None:
    if age_years is None:
        return None
    if age_years < 40:
        return "< 40"
    if age_years < 60:
        return "40–59"
    return "60–74" if age_years < 75 else "≥ 75"
