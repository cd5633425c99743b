"""Slices in their slabs: what each shows of things whose place and size are known."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.base.types import SpacingMm
from ctscribe.scan.boxes import boxes_in_frames, boxes_of_mask, reach_of_frames, touches
from ctscribe.scan.frames import (
    WINDOWS,
    PreparedVolume,
    air_frames,
    frames_of_lungs,
    make_frames,
    noise_frames,
)
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.slabs import reach_of_slabs, slab_spans, slab_thickness_mm
from ctscribe.scan.volume import CTVolume
from tests.scans import chest
from tests.studies import study_row

SHAPE, SPACING_MM = (80, 96, 130), (4.0, 3.0, 2.5)
"""The lungs reach over about 100 slices of 2.5 mm."""
SLAB, SOFT, LUNG = range(3)
"""Channels: the slab's maximum in the wide window, the slice in those of soft tissue and lung."""


def clear_chest() -> CTVolume:
    """A chest whose lungs are −850 HU everywhere, without noise."""
    volume = chest(SHAPE, SPACING_MM)
    hu = np.where(volume.hu < -925, -1000, np.where(volume.hu < -500, -850, 40))
    return CTVolume(np.asfortranarray(hu.astype(np.int16)), volume.affine)


def shown(
    source: CTVolume,
    *,
    num_slices: int = 10,
    slab_mm: float = 12.5,
    token_budget: int | None = None,
) -> PreparedVolume:
    knobs = SlicesConfig(
        num_slices=num_slices,
        windows="three",
        projection="slab",
        slab_mm=slab_mm,
        token_budget=token_budget,
    )
    return frames_of_lungs(source, VolumeConfig(spacing_mm=SPACING_MM), knobs)


def without(source: CTVolume, num_slices: int) -> PreparedVolume:
    knobs = SlicesConfig(num_slices=num_slices, windows="three")
    return frames_of_lungs(source, VolumeConfig(spacing_mm=SPACING_MM), knobs)


def brighter(prepared: PreparedVolume, clear: PreparedVolume, channel: int) -> list[list[int]]:
    """(frame, row, column) of what is brighter than without what was put there."""
    places: list[list[int]] = np.argwhere(
        prepared.frames[..., channel] > clear.frames[..., channel]
    ).tolist()
    return places


def test_frames_without_slabs_are_the_bytes_they_were() -> None:
    """Of the commit before there were slabs."""
    assert hashlib.sha256(without(chest(SHAPE, SPACING_MM), 10).frames.tobytes()).hexdigest() == (
        "50eb593b0183206627171090e2077524f77f83b1530952d106d69125b60cd06e"
    )


def test_slices_stay_as_they_were_beside_their_slabs() -> None:
    source = chest(SHAPE, SPACING_MM)
    slabs, slices = shown(source), without(source, 10)
    np.testing.assert_array_equal(slabs.frames[..., SOFT:], slices.frames[..., SOFT:])
    assert slabs.slice_indices == slices.slice_indices
    assert slabs.position_mm == slices.position_mm
    np.testing.assert_array_equal(slabs.frame_to_ras, slices.frame_to_ras)
    np.testing.assert_array_equal(slabs.shown.hu, slices.shown.hu)
    assert (slices.slabs, slices.reach_z) == (None, ())


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2, 3])
def test_a_nodule_beside_the_slice_is_in_its_slab_alone(off: int) -> None:
    """One voxel of −850 HU lung at 0 HU, so many slices of 2.5 mm above a place."""
    clear = shown(clear_chest())
    source = clear_chest()
    source.hu[22, 48, clear.slice_indices[4] + off] = 0
    found = shown(source)
    assert found.slice_indices == clear.slice_indices
    in_slab, in_slice = brighter(found, clear, SLAB), brighter(found, clear, LUNG)
    assert [frame for frame, *_ in in_slab] == ([4] if abs(off) <= 2 else [])
    assert in_slice == brighter(found, clear, SOFT) == (in_slab if off == 0 else [])
    study = study_row(
        "a",
        shape_xyz=source.shape_xyz,
        slice_indices=found.slice_indices,
        position_mm=found.position_mm,
        frame_to_ras=tuple(map(tuple, found.frame_to_ras.tolist())),
        reach_z=found.reach_z,
    )
    mask = source.hu - clear_chest().hu > 0
    (box,) = boxes_in_frames(study, boxes_of_mask(mask, source.affine))
    column, row = box[:2].mean(1).round().astype(int).tolist()
    touched = np.flatnonzero(touches(box, reach_of_frames(study))).tolist()
    assert [[frame, row, column] for frame in touched] == in_slab


def test_a_vessel_is_a_dot_in_the_slice_and_a_line_in_the_slab() -> None:
    clear = shown(clear_chest())
    source = clear_chest()
    for off in range(-8, 9):
        source.hu[22, 48 + 2 * off : 50 + 2 * off, clear.slice_indices[4] + off] = 40
    found = shown(source)
    in_slice, in_slab = (
        [place for place in brighter(found, clear, channel) if place[0] == 4]
        for channel in (LUNG, SLAB)
    )
    assert len(in_slice) == 2
    assert len(in_slab) == 2 * 5
    assert len({column for _, _, column in in_slab}) == 1


def test_a_thin_slices_density_is_kept_on_a_coarse_grid() -> None:
    """A calcification of one slice of 1 mm, on a grid of 5 mm: blending would leave half of it."""
    hu = np.full((28, 28, 60), -850, np.int16)
    hu[10, 12, 31] = 800
    source = CTVolume(np.asfortranarray(hu), np.diag([1.0, 1.0, 1.0, 1.0]))
    grid = plan_resampling(source, (1.0, 1.0, 5.0), antialias=True)
    assert grid.project(slab_spans(grid, (6,), 10.0))[10, 12, 0] == 800
    assert grid.stack((6,))[10, 12, 0] < 0


@pytest.mark.parametrize("token_budget", [None, 200])
def test_no_slab_is_darker_than_its_slice(token_budget: int | None) -> None:
    found = shown(chest(SHAPE, SPACING_MM), token_budget=token_budget)
    assert found.slabs is not None
    assert (found.slabs.hu >= found.shown.hu - 0.01).all()
    slices, _ = make_frames(found.shown, range(10), WINDOWS["single"], found.frames.shape[1:3])
    assert (found.frames[..., SLAB] >= slices[..., 0]).all()
    assert (found.frames[..., SLAB] > slices[..., 0]).any()


sizes = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(4, 60))
spacings = st.tuples(*[st.floats(0.5, 3.0)] * 2, st.floats(0.4, 8.0))


@settings(max_examples=60, deadline=None)
@given(sizes, spacings, spacings, st.floats(5, 30), st.booleans(), st.data())
def test_a_slab_lies_around_its_slice(
    shape: tuple[int, int, int],
    current: SpacingMm,
    target: SpacingMm,
    slab_mm: float,
    antialias: bool,
    data: st.DataObject,
) -> None:
    """Slab ≥ slice, and as thick as asked for to within one source slice."""
    hu = np.random.default_rng(0).integers(-1024, 3000, shape[::-1], dtype=np.int16).T
    grid = plan_resampling(CTVolume(hu, np.diag([*current, 1.0])), target, antialias=antialias)
    depth = grid.shape_xyz[2]
    drawn = data.draw(st.sets(st.integers(0, depth - 1), min_size=1, max_size=6))
    indices = tuple(sorted(drawn, reverse=True))
    spans = slab_spans(grid, indices, slab_mm)
    assert (grid.project(spans) >= grid.stack(indices) - 0.01).all()
    reach = reach_of_slabs(grid, indices, spans)
    thick = slab_thickness_mm(reach, grid.spacing_mm)
    own = [grid.taps_xyz[2].weights[index].astype(bool).sum() for index in indices]
    for index, (low, high), mm, span, of_slice in zip(
        indices, reach, thick, spans, own, strict=True
    ):
        assert low <= index - 0.5
        assert high >= index + 0.5
        assert mm >= len(span) * current[2] - 1e-6
        least = max(slab_mm, grid.spacing_mm[2], of_slice * current[2])
        assert mm <= least + current[2] + 1e-6


@pytest.mark.parametrize("spacing_z", [0.5, 0.625, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("slab_mm", [5.0, 10.0, 15.0])
def test_millimetres_not_slices_say_how_thick_it_is(spacing_z: float, slab_mm: float) -> None:
    source = CTVolume(
        np.zeros((2, 2, round(200 / spacing_z)), np.int16), np.diag([1, 1, spacing_z, 1])
    )
    grid = plan_resampling(source, (1.0, 1.0, spacing_z))
    (span,) = slab_spans(grid, (round(100 / spacing_z),), slab_mm)
    assert abs(len(span) * spacing_z - slab_mm) <= spacing_z


def test_neighbours_share_what_lies_between_them() -> None:
    """Thicker than the way to the next place, slabs meet: together they show all, hardly twice."""
    source = CTVolume(np.zeros((2, 2, 200), np.int16), np.eye(4))
    grid = plan_resampling(source, (1.0, 1.0, 1.5))
    indices = tuple(range(120, 8, -7))
    spans = slab_spans(grid, indices, 30.0)

    def union(some: Sequence[range]) -> set[int]:
        return {z for span in some for z in span}

    assert union(spans) == set(range(spans[-1].start, spans[0].stop))
    assert sum(map(len, spans)) <= len(union(spans)) + len(spans)
    assert spans[0].stop - 1 - (indices[0] + 0.5) * 1.5 == pytest.approx(15, abs=1)


def test_noise_and_air_have_slabs_too() -> None:
    plain = noise_frames(3, 4, (28, 56), WINDOWS["three"])
    noise = noise_frames(3, 4, (28, 56), WINDOWS["three"], "slab")
    np.testing.assert_array_equal(noise[..., SOFT:], plain[..., SOFT:])
    for first in (0, 2):
        highest = plain[first : first + 2, ..., 0].max(0)
        assert (noise[first : first + 2, ..., SLAB] == highest).all()
    air = CTVolume(np.full(SHAPE, -1024, np.int16), np.diag([*SPACING_MM, 1.0]))
    found = shown(air).frames
    np.testing.assert_array_equal(found, air_frames(10, found.shape[1:3], WINDOWS["three"]))
