"""Headers of all slices in a folder → the one series that is read, and a note of the others."""

from collections import defaultdict
from typing import Any

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_headers import Numbers, SliceHeader, plane_normal
from ctscribe.scan.metadata import kernel_sharpness
from ctscribe.scan.volume import MIN_SLICES, Notes, note

RULE = (
    f"of CT series, without localizers: {MIN_SLICES} slices or more first, then axial ones, "
    "then most slices, thinnest slices, softest kernel, lowest series number"
)
"""The preferences of `_preference`, as the record states them."""
_PLANES = ("sagittal", "coronal", "axial")
_MODALITIES = {"CT", "CR", "DX", "MG", "MR", "NM", "OT", "PR", "PT", "RF", "SC", "SEG", "SR", "US"}
"""Those that an error may name; a header may hold any text there."""
_SAME_STACK_COSINE = 0.9
"""Slices of one series that are turned further than 25 degrees cannot be one stack."""


def choose_series(headers: list[SliceHeader], study: str) -> tuple[list[SliceHeader], Notes]:
    """Picks one CT series by `RULE`.

    Slices that one series holds across its others, as unmarked localizers lie, count as a
    series of their own. Pictures in colour or without a position are no candidates as long as
    there are others.

    Returns:
        The slices of the chosen series, in no order; ``W_OTHER_SERIES`` with the detail
        ``series``: the rule, the chosen one and the others.

    Raises:
        CtscribeError: ``E_NOT_CT`` or ``E_MIXED_PATIENT``.
    """
    images = [one for one in headers if one.modality == "CT" and one.size is not None]
    images = [one for one in images if not one.localizer]
    if not images:
        found = sorted({one.modality if one.modality in _MODALITIES else "?" for one in headers})
        raise CtscribeError(
            "E_NOT_CT",
            f"{study} must hold axial CT images, but holds none (modalities: {', '.join(found)})",
        )
    if len({one.patient for one in images}) > 1:
        raise CtscribeError(
            "E_MIXED_PATIENT",
            f"{study} must hold images of one patient, but holds several",
        )
    groups = sorted(_stacks(images), key=_preference)
    chosen, others = groups[0], groups[1:]
    codes = frozenset().union(*(one.codes for one in chosen))
    if not others:
        return chosen, note(*codes)
    told = {"rule": RULE, "chosen": _name(chosen), "others": [_name(one) for one in others]}
    return chosen, note(*codes, "W_OTHER_SERIES", series=told)


def say_series(series: dict[str, Any]) -> str:
    """Two sentences for a reader, of the detail ``series`` that `choose_series` notes."""
    others = "; ".join(_say(one) for one in series["others"])
    return f"Read was {_say(series['chosen'])}. Left aside: {others}."


def _stacks(images: list[SliceHeader]) -> list[list[SliceHeader]]:
    by_series: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    for one in images:
        by_series[one.series].append(one)
    return [stack for series in by_series.values() for stack in _parallel(series)]


def _parallel(series: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Splits a series by the direction of its slices; those without one join the largest part."""
    stacks: list[tuple[Numbers, list[SliceHeader]]] = []
    lost: list[SliceHeader] = []
    for one in series:
        if one.orientation is None:
            lost.append(one)
            continue
        normal = plane_normal(one.orientation)
        like = [stack for of, stack in stacks if abs(float(of @ normal)) > _SAME_STACK_COSINE]
        if like:
            like[0].append(one)
        else:
            stacks.append((normal, [one]))
    groups = sorted((stack for _, stack in stacks), key=len, reverse=True) or [[]]
    groups[0].extend(lost)
    return groups


def _plane(series: list[SliceHeader]) -> str | None:
    found = next((one.orientation for one in series if one.orientation is not None), None)
    return None if found is None else _PLANES[int(np.argmax(np.abs(plane_normal(found))))]


def _preference(series: list[SliceHeader]) -> tuple[Any, ...]:
    """Sorts the series that `RULE` prefers first; those without positions or in colour last."""
    first = series[0]
    placed = any(one.position_lps_mm is not None and one.grey for one in series)
    return (
        not placed,
        len(series) < MIN_SLICES,
        _plane(series) != "axial",
        -len(series),
        first.thickness_mm,
        kernel_sharpness(first.kernel),
        first.series_number,
        first.series,
    )


def _name(series: list[SliceHeader]) -> dict[str, Any]:
    """What the record says of a series: numbers alone, because descriptions may name a patient."""
    first = series[0]
    number, thickness = first.series_number, first.thickness_mm
    return {
        "series_number": int(number) if np.isfinite(number) else None,
        "num_slices": len(series),
        "plane": _plane(series),
        "thickness_mm": thickness if 0 < thickness < 100 else None,
    }


def _say(one: dict[str, Any]) -> str:
    number = "a series without number" if one["series_number"] is None else ""
    thickness = f" of {one['thickness_mm']:g} mm" if one["thickness_mm"] else ""
    plane = f"{one['plane']} " if one["plane"] else ""
    name = number or f"series {one['series_number']}"
    return f"{name} ({one['num_slices']} {plane}slices{thickness})"
