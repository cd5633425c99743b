"""Headers of all slices in a folder → the one series that is read, and a note of the others."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_headers import SliceHeader, plane_normal
from ctscribe.scan.dicom_stacks import Stack, is_even_stack, is_joined, stacks_of
from ctscribe.scan.metadata import kernel_sharpness, plain_kernel
from ctscribe.scan.volume import MIN_SLICES, Notes, note, note_if

RULE = (
    f"of axial CT series, without localizers: {MIN_SLICES} slices or more first, then originals "
    "before what was derived of them, this before projections and maps, then most slices, "
    "thinnest slices, softest kernel, lowest series number, earliest acquisition"
)
"""The order of `_preference` in words, for the volume's record."""
ASKED = "the series that was asked for"
"""The record's words where `--series` decided."""
_PLANES = ("sagittal", "coronal", "axial")
_AXIAL_COSINE = 0.7
"""Planes turned further than 45 degrees are not axial."""
_KINDS = ("", "derived", "a projection or map")
"""By `SliceHeader.derived`."""
_MODALITIES = {"CT", "CR", "DX", "MG", "MR", "NM", "OT", "PR", "PT", "RF", "SC", "SEG", "SR", "US"}
"""Those that an error may name; a header may hold any text there."""


def choose_series(
    headers: list[SliceHeader], study: str, asked: str | None = None
) -> tuple[Stack, Notes]:
    """Picks one axial CT series, the one that is asked for or else by `RULE`.

    It picks among stacks, see `stacks_of`: each acquisition in a series, and slices that lie across
    the others, such as unmarked localizers, count as a series of their own. Images in colour or
    without a position are chosen only if there are no others.

    Args:
        headers: Of all files.
        study: Name for errors.
        asked: Number or SeriesInstanceUID; ``NUMBER:PART`` or ``UID:PART`` for one stack of a
            series that was parted, counted from 1, earlier acquisitions first.

    Returns:
        The slices of the chosen series, in no order; ``W_OTHER_SERIES`` with the detail
        ``series``: the rule, the chosen one and the others; ``W_SERIES_JOINED``, ``W_DERIVED``.

    Raises:
        CtscribeError: ``E_NOT_CT``, ``E_MIXED_PATIENT`` or ``E_SERIES``.
    """
    series = _Series(stacks_of(_images(headers, study)))
    chosen = _first_axial(series, study, asked)
    if is_joined(chosen) and not is_even_stack(chosen):
        raise CtscribeError(
            "E_UNEVEN_SPACING",
            f"{study} must be one series, but each slice is a series of its own, and together they "
            "make no evenly spaced stack",
        )
    others = [stack for stack in series.preferred() if stack is not chosen]
    notes = (
        note(*frozenset().union(*(one.codes for one in chosen)))
        | note_if(is_joined(chosen), "W_SERIES_JOINED")
        | note_if(chosen[0].derived > 1, "W_DERIVED")
    )
    if not others:
        return chosen, notes
    rule = RULE if asked is None else ASKED
    left = [
        series.describe(one) | ({"other_study": True} if one[0].study != chosen[0].study else {})
        for one in others
    ]
    choice = {"chosen": series.describe(chosen), "others": left}
    return chosen, notes | note("W_OTHER_SERIES", series={"rule": rule, **choice})


def _images(headers: list[SliceHeader], study: str) -> list[SliceHeader]:
    """The CT images without localizers, which must be of one patient."""
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
            "E_MIXED_PATIENT", f"{study} must hold images of one patient, but holds several"
        )
    return images


@final
@dataclass(frozen=True)
class _Series:
    """All stacks of a folder; those of one series are adjacent, earlier acquisitions first."""

    stacks: list[Stack]

    def preferred(self) -> list[Stack]:
        """The stacks in the order of `RULE`."""
        return sorted(self.stacks, key=_preference)

    def part(self, stack: Stack) -> int | None:
        """Which part of its series a stack is, from 1; None where the series was not parted."""
        parts = [one for one in self.stacks if one[0].series == stack[0].series]
        return (
            None if len(parts) == 1 else 1 + next(k for k, one in enumerate(parts) if one is stack)
        )

    def is_called(self, stack: Stack, asked: str) -> bool:
        name, _, part = asked.strip().partition(":")
        return any(name in one.called for one in stack) and part in ("", str(self.part(stack)))

    def describe(self, stack: Stack) -> dict[str, Any]:
        """A stack in numbers, for the record; SeriesDescription may name a patient."""
        first = stack[0]
        number, thickness = first.series_number, first.thickness_mm
        described = {
            "series_number": int(number) if np.isfinite(number) else None,
            "num_slices": len(stack),
            "plane": _plane(stack),
            "thickness_mm": thickness if 0 < thickness < 100 else None,
        }
        more = {"part": self.part(stack), "kind": _KINDS[first.derived]}
        return described | {key: value for key, value in more.items() if value}


def _first_axial(series: _Series, study: str, asked: str | None) -> Stack:
    """The preferred axial stack of the series that is asked for, or of all."""
    stacks = series.preferred()
    wanted = [stack for stack in stacks if asked is None or series.is_called(stack, asked)]
    if not wanted:
        found = "; ".join(dict.fromkeys(_in_words(series.describe(stack)) for stack in stacks))
        raise CtscribeError(
            "E_SERIES", f"{study} must hold the series that was asked for, but holds {found}"
        )
    axial = [stack for stack in wanted if _plane(stack) in (None, "axial")]
    if not axial:
        found = " and ".join(sorted({str(_plane(stack)) for stack in wanted}))
        raise CtscribeError(
            "E_NOT_CT",
            f"{study} must hold axial images, because only they make a chest, but holds {found} "
            "ones",
        )
    return axial[0]


def say_series(series: dict[str, Any]) -> str:
    """Two sentences for a reader from the detail ``series`` of `choose_series`'s notes."""
    return f"Read was {_in_words(series['chosen'])}. Left aside: {_all_in_words(series['others'])}."


def choice_cells(chosen: Stack, notes: Notes) -> dict[str, str]:
    """The columns in which a list of scans describes the series that `choose_series` chose.

    ``series`` can be passed to `choose_series` again; it is empty for a series without number.
    ``kernel`` is empty unless it is a known one, because a header may hold any text there.
    """
    choice = notes.details.get("series")
    one = choice["chosen"] if choice else _Series([chosen]).describe(chosen)
    part = f":{one['part']}" if "part" in one else ""
    number = one["series_number"]
    why = "the only CT series"
    if choice:
        why = f"left aside: {_all_in_words(choice['others'])}; {RULE}"
    return {
        "series": "" if number is None else f"{number}{part}",
        "kernel": plain_kernel(chosen[0].kernel),
        "thickness_mm": f"{one['thickness_mm']:g}" if one["thickness_mm"] else "",
        "chosen": _in_words(one),
        "why": why,
    }


def _all_in_words(series: list[dict[str, Any]]) -> str:
    return "; ".join(map(_in_words, series))


def _plane(series: Stack) -> str | None:
    """The plane nearest to its slices, or oblique; None where no slice has an orientation."""
    found = next((one.orientation for one in series if one.orientation is not None), None)
    if found is None:
        return None
    cosines = np.abs(plane_normal(found))
    name = _PLANES[int(np.argmax(cosines))]
    return "oblique" if name == "axial" and cosines[2] < _AXIAL_COSINE else name


def _preference(series: Stack) -> tuple[Any, ...]:
    """Sort key of `RULE`; series in colour or without positions come last."""
    first = series[0]
    placed = any(one.position_lps_mm is not None and one.grey for one in series)
    return (
        not placed,
        len(series) < MIN_SLICES,
        first.derived,
        -len(series),
        first.thickness_mm,
        kernel_sharpness(first.kernel),
        first.series_number,
        first.series,
    )


def _in_words(one: dict[str, Any]) -> str:
    number = "a series without number" if one["series_number"] is None else ""
    thickness = f" of {one['thickness_mm']:g} mm" if one["thickness_mm"] else ""
    plane = f"{one['plane']} " if one["plane"] else ""
    part = f":{one['part']}" if "part" in one else ""
    name = number or f"series {one['series_number']}{part}"
    kind = f", {one['kind']}" if "kind" in one else ""
    study = ", of another study" if "other_study" in one else ""
    return f"{name} ({one['num_slices']} {plane}slices{thickness}{kind}{study})"
