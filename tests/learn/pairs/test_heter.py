import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.pairs.heter import (
    Partners,
    draw_mutual_partners,
    draw_partners,
    draw_strangers,
)

Arrays = tuple[np.ndarray, np.ndarray]


def brute_force(
    labels: np.ndarray, patients: np.ndarray, minimum: int
) -> list[tuple[int, set[int]]]:
    """Per volume: the distance that had to suffice, and everyone eligible at it."""
    distance = (labels[:, None] != labels[None]).sum(-1)
    other = patients[:, None] != patients[None]
    answers = []
    for row in range(len(labels)):
        required = minimum
        while required and not (other[row] & (distance[row] >= required)).any():
            required -= 1
        answers.append(
            (required, set(np.flatnonzero(other[row] & (distance[row] >= required)).tolist()))
        )
    return answers


@st.composite
def cohorts(draw: st.DrawFn) -> Arrays:
    num_volumes, num_labels = draw(st.integers(2, 14)), draw(st.integers(1, 6))
    bits = st.lists(st.integers(0, 1), min_size=num_labels, max_size=num_labels)
    labels = draw(st.lists(bits, min_size=num_volumes, max_size=num_volumes))
    patients = draw(st.lists(st.integers(0, 5), min_size=num_volumes, max_size=num_volumes))
    return np.array(labels, np.uint8), np.array(patients, np.int64)


def drawn_or_refused(
    draw: Callable[..., Partners], cohort: Arrays, minimum: int, seed: int
) -> Partners | None:
    """None where somebody differs from nobody, which must then be refused."""
    if any(required == 0 for required, _ in brute_force(*cohort, minimum)):
        with pytest.raises(CtscribeError, match="another patient whose labels differ"):
            draw(*cohort, minimum, seed)
        return None
    return draw(*cohort, minimum, seed)


@given(cohorts(), st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_partners_are_eligible_and_relaxed_only_as_far_as_needed(
    cohort: Arrays, minimum: int, seed: int
) -> None:
    labels, patients = cohort
    minimum = min(minimum, labels.shape[1])
    drawn = drawn_or_refused(draw_partners, cohort, minimum, seed)
    if drawn is None:
        return
    for row, (required, eligible) in enumerate(brute_force(labels, patients, minimum)):
        assert drawn.index[row] in eligible
        assert drawn.relaxed_by[row] == minimum - required
        assert drawn.distance[row] == (labels[row] != labels[drawn.index[row]]).sum()


@given(cohorts(), st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_couples_are_mutual_and_no_two_that_differ_more_were_left_apart(
    cohort: Arrays, minimum: int, seed: int
) -> None:
    labels, patients = cohort
    minimum = min(minimum, labels.shape[1])
    drawn = drawn_or_refused(draw_mutual_partners, cohort, minimum, seed)
    if drawn is None:
        return
    alone = draw_partners(labels, patients, minimum, seed)
    rows = np.arange(len(labels))
    mutual = drawn.index[drawn.index] == rows
    assert (drawn.index[~mutual] == alone.index[~mutual]).all()
    distance = (labels[:, None] != labels[None]).sum(-1)
    assert (drawn.distance == distance[rows, drawn.index]).all()
    assert (patients != patients[drawn.index]).all()
    assert (drawn.distance >= minimum - drawn.relaxed_by).all()
    # the distance at which each came together; two that differ more than both had to are none
    level = np.where(mutual, minimum - drawn.relaxed_by, 0)
    apart = np.where(patients[:, None] == patients[None], 0, np.minimum(distance, minimum))
    assert (apart <= np.maximum(level[:, None], level[None])).all()


def test_every_eligible_volume_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (12, 5)).astype(np.uint8)
    patients = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    _, eligible = brute_force(labels, patients, 2)[0]
    drawn = Counter(int(draw_partners(labels, patients, 2, seed).index[0]) for seed in range(1500))
    assert set(drawn) == eligible
    assert chisquare([drawn[volume] for volume in sorted(eligible)]).pvalue > 0.001


def test_same_seed_same_partners_and_other_seed_others() -> None:
    rng = np.random.default_rng(0)
    labels, patients = rng.integers(0, 2, (200, 18)).astype(np.uint8), np.arange(200)
    first, second, third = (draw_partners(labels, patients, 10, seed).index for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_a_distance_beyond_the_labels_counts_as_relaxed() -> None:
    labels = np.array([[0, 0], [1, 1]], np.uint8)
    drawn = draw_partners(labels, np.arange(2), 10, 0)
    assert drawn.index.tolist() == [1, 0]
    assert drawn.relaxed_by.tolist() == [8, 8]


def test_as_many_volumes_as_ct_rate_has_take_two_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((47_149, 18)) < rng.random((47_149, 1)) * 0.6).astype(np.uint8)
    patients = np.sort(rng.integers(0, 21_304, 47_149))
    started = time.process_time()
    drawn = draw_partners(labels, patients, 10, 0)
    assert time.process_time() - started < 2
    assert (patients[drawn.index] != patients).all()
    assert (drawn.distance >= 10 - drawn.relaxed_by).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_strangers_are_other_patients(patients: list[int], seed: int) -> None:
    numbers = np.array(patients, np.int64)
    if len(set(patients)) < 2:
        with pytest.raises(CtscribeError, match="two patients or more"):
            draw_strangers(numbers, seed)
        return
    assert (numbers[draw_strangers(numbers, seed)] != numbers).all()


def test_strangers_are_uniform() -> None:
    patients = np.array([3, 1, 1, 2, 3])
    drawn = Counter(int(draw_strangers(patients, seed)[1]) for seed in range(3000))
    assert set(drawn) == {0, 3, 4}
    assert chisquare(list(drawn.values())).pvalue > 0.001
