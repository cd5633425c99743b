"""Scans that read alike: the same as comparing every pair, without holding every pair."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.show.look_alikes import closest_pairs, look_alikes
from tests.studies import study_row, write_prepared

NORMAL = "The lungs are clear and the heart is of normal size."


def study(patient: str, findings: str, scan: str = "a") -> StudyRow:
    return study_row(f"{patient}_{scan}_1.nii.gz", findings=findings, impression="")


def prepare(folder: Path, greys: dict[StudyRow, int], side_px: int = 28) -> Prepared:
    shape = (4, side_px, side_px, 3)
    frames = [np.full(shape, grey, dtype=np.uint8) for grey in greys.values()]
    return write_prepared(folder, greys, frames=frames)


def test_equal_reports_win_over_different_images(tmp_path: Path) -> None:
    one, two = study("valid_1", NORMAL), study("valid_2", NORMAL + " No effusion.")
    odd = study("valid_3", "A large mass destroys the left upper lobe.")
    prepared = prepare(tmp_path, {one: 10, odd: 250, two: 20})
    assert look_alikes(prepared.studies, prepared) == (one, two)


def test_of_equally_alike_reports_the_images_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctscribe.show.look_alikes._CANDIDATES", 1.0)
    one, two, three = (study(f"valid_{number}", NORMAL) for number in (1, 2, 3))
    prepared = prepare(tmp_path, {one: 100, two: 10, three: 90})
    assert look_alikes(prepared.studies, prepared) == (one, two)


def test_one_patient_and_frames_of_other_sizes_do_not_compare(tmp_path: Path) -> None:
    one, again = study("valid_1", NORMAL), study("valid_1", NORMAL, "b")
    two = study("valid_2", NORMAL)
    prepared = prepare(tmp_path, {one: 0, again: 255})
    assert look_alikes([one, again], prepared) is None
    prepare(tmp_path, {two: 9}, side_px=56)
    assert look_alikes([one, two], prepared) is None


def naive(has: np.ndarray, patients: np.ndarray) -> list[tuple[int, int]]:
    """Every pair of different patients' scans, the most alike first, of equals the earlier."""
    first, second = np.triu_indices(len(has), k=1)
    apart = patients[first] != patients[second]
    first, second = first[apart], second[apart]
    sizes = has.sum(axis=1)
    likeness = 2 * (has @ has.T)[first, second] / np.maximum(1, sizes[first] + sizes[second])
    order = np.argsort(-likeness, kind="stable")
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_the_closest_pairs_are_those_of_comparing_all(
    seed: int, num_scans: int, num_items: int, copied: float
) -> None:
    rng = np.random.default_rng(seed)
    has = (rng.random((num_scans, num_items)) < rng.random(num_items)).astype(np.int64)
    for scan in np.flatnonzero(rng.random(num_scans) < copied):  # some are near-copies of others
        has[scan] = has[rng.integers(num_scans)]
        has[scan, rng.integers(num_items)] ^= 1
    patients = rng.integers(0, rng.integers(2, num_scans + 2), num_scans)
    expected = naive(has, patients)
    for number in {1, len(expected) // 3, len(expected)} - {0} if expected else ():
        assert closest_pairs(csr_matrix(has), patients, number) == expected[:number]


@pytest.mark.parametrize("num_distinct", [1, 10_000])
def test_memory_grows_with_the_scans_and_not_with_their_square(num_distinct: int) -> None:
    def peak(num_scans: int) -> int:
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, 5000, (min(num_distinct, num_scans), 60))
        columns = np.sort(drawn[rng.integers(0, len(drawn), num_scans)])
        rows = np.repeat(np.arange(num_scans), 60)
        has = csr_matrix((np.ones(columns.size, np.int64), (rows, columns.ravel())))
        has.data[:] = 1
        tracemalloc.start()
        closest_pairs(has, np.arange(num_scans), 200)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(4000) < 6 * peak(1000)
