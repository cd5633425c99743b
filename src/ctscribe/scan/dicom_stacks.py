"""Headers of CT slices → stacks: the slices of one acquisition, phase or reconstruction.

In: `SliceHeader`s of any series. Out: lists of them. Series with several acquisitions are parted,
and series of a single slice each are joined.
"""

from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import final

import numpy as np

from ctscribe.scan.dicom_headers import Numbers, SliceHeader, plane_normal

Stack = list[SliceHeader]
SAME_PLACE_MM = 0.01
"""Slices nearer than this along their normal share a position."""
_UNEVEN, _ROUNDING_MM = 0.1, 0.02
"""Distances between slices may differ from the median by this share, or by mm of rounding."""
_SAME_STACK_COSINE = 0.9
"""Slices whose normals differ by more than 25 degrees are not one stack."""
_FARTHEST_MM = 1e6
_MAX_PARTS = 100
"""An element with more values than this does not number the phases of a series."""


def stacks_of(images: Iterable[SliceHeader]) -> list[Stack]:
    """All stacks; those of one series are adjacent, earlier acquisitions first."""
    by_series = _grouped(images, lambda one: one.series)
    joined = _joined([stack for series in by_series for stack in _parallel(series)])
    return [part for stack in joined for part in _parted(stack)]


def is_even(steps_mm: Numbers) -> bool:
    """Whether distances between neighbouring slices are equal, but for rounding in headers."""
    usual = float(np.median(steps_mm))
    return bool(np.abs(steps_mm - usual).max() <= max(_UNEVEN * usual, _ROUNDING_MM))


def is_joined(stack: Stack) -> bool:
    """Whether a stack was joined from several series."""
    return len({one.series for one in stack}) > 1


def is_even_stack(stack: Stack) -> bool:
    """Whether a stack has three or more distinct positions, at equal distances."""
    normals = [plane_normal(one.orientation) for one in stack if one.orientation is not None]
    places = _places(stack, normals[0])
    return len(places) > 2 and is_even(np.diff(places) * SAME_PLACE_MM)


def _grouped(images: Iterable[SliceHeader], key: Callable[[SliceHeader], Hashable]) -> list[Stack]:
    groups: defaultdict[Hashable, Stack] = defaultdict(list)
    for one in images:
        groups[key(one)].append(one)
    return [*groups.values()]


def _parallel(series: Stack) -> list[Stack]:
    """Splits a series by the normals of its slices; slices without one join the largest part."""
    stacks: list[tuple[Numbers, Stack]] = []
    without: Stack = []
    for one in series:
        if one.orientation is None:
            without.append(one)
            continue
        normal = plane_normal(one.orientation)
        parallel = [s for other, s in stacks if abs(float(other @ normal)) > _SAME_STACK_COSINE]
        if parallel:
            parallel[0].append(one)
        else:
            stacks.append((normal, [one]))
    groups = sorted((stack for _, stack in stacks), key=len, reverse=True) or [[]]
    groups[0].extend(without)
    return groups


def _joined(stacks: list[Stack]) -> list[Stack]:
    """Joins series of a single slice each that differ only in position.

    De-identification software may give every file a SeriesInstanceUID of its own.
    """
    several = [stack for stack in stacks if len(stack) > 1 or not _is_placed(stack[0])]
    single = [stack[0] for stack in stacks if len(stack) == 1 and _is_placed(stack[0])]
    return several + _grouped(single, _likeness)


def _is_placed(one: SliceHeader) -> bool:
    position = one.position_lps_mm
    near = position is not None and bool(np.abs(position).max() < _FARTHEST_MM)
    return near and one.orientation is not None


def _likeness(one: SliceHeader) -> Hashable:
    geometry = (one.size, one.spacing_mm, one.orientation)
    rounded = (None if value is None else tuple(value.round(3).tolist()) for value in geometry)
    return (one.study, one.kernel, one.thickness_mm, one.derived, one.grey, *rounded)


def _parted(stack: Stack) -> list[Stack]:
    """Parts a stack by the first element of its headers that distinguishes acquisitions.

    An element does so if fewer slices share a position after parting, or if every part is an evenly
    spaced stack although their ranges overlap. An acquisition number that counts slices or
    rotations is no reason to part a stack.
    """
    first = stack[0].orientation
    if first is None or not all(map(_is_placed, stack)):
        return [stack]
    normal = plane_normal(first)
    doubled = len(stack) - len(_places(stack, normal))
    for element, _ in enumerate(stack[0].parting):
        parts = _unmixed(stack, element, normal)
        if len(parts) < 2:
            continue
        still_doubled = len(stack) - sum(len(_places(part, normal)) for part in parts)
        if still_doubled < doubled or all(is_even_stack(part) for part in parts):
            return [leaf for part in parts for leaf in _parted(part)]
    return [stack]


def _unmixed(stack: Stack, element: int, normal: Numbers) -> list[Stack]:
    """Groups slices by the value of an element, and merges groups that do not overlap."""
    groups = _grouped(stack, lambda one: one.parting[element])
    if len(groups) == 1:
        return groups
    parts: list[_Part] = []
    for group in sorted(groups, key=lambda group: _natural(group[0].parting[element])):
        places = _places(group, normal)
        part = next((part for part in parts if part.has_room(places)), None)
        if part is None:
            part = _Part()
            parts.append(part)
        part.take(group, places)
        if len(parts) > _MAX_PARTS:
            return [stack]
    return [part.slices for part in parts]


@final
class _Part:
    """Groups of slices whose positions differ and whose ranges do not overlap."""

    def __init__(self) -> None:
        self.slices: Stack = []
        self._places: set[int] = set()
        self._ranges: list[tuple[int, int]] = []

    def has_room(self, places: list[int]) -> bool:
        """Whether a group's positions are free, and outside the ranges of larger groups."""
        if any(near in self._places for at in places for near in (at - 1, at, at + 1)):
            return False
        after = bisect(self._ranges, (places[0], places[0]))
        ends_before = after == len(self._ranges) or places[-1] < self._ranges[after][0]
        begins_after = after == 0 or places[0] > self._ranges[after - 1][1]
        return len(places) == 1 or (ends_before and begins_after)

    def take(self, group: Stack, places: list[int]) -> None:
        self.slices += group
        self._places.update(places)
        if len(places) > 1:
            insort(self._ranges, (places[0], places[-1]))


def _places(stack: Stack, normal: Numbers) -> list[int]:
    """Distinct positions along a normal, ascending, as multiples of `SAME_PLACE_MM`."""
    along = np.array([one.position_lps_mm for one in stack]) @ normal
    places: list[int] = np.unique(np.rint(along / SAME_PLACE_MM)).astype(int).tolist()
    return places


def _natural(value: str) -> tuple[float, str]:
    """Sort key: numbers by size, after all other values."""
    try:
        return float(value), value
    except ValueError:
        return -np.inf, value
