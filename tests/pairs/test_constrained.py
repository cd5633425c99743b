from collections import Counter, defaultdict
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctscribe.errors import CtscribeError
from ctscribe.pairs.constrained import UNKNOWN_SCANNER, draw_constrained_partners
from tests.pairs.test_negatives import Arrays, cohorts

LABELS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], np.uint8)
PATIENTS = np.array([0, 0, 1, 2])


def eligible(
    labels: np.ndarray,
    patients: np.ndarray,
    minimum: int,
    study: int,
    allowed: np.ndarray,
) -> list[int]:
    """By looking at everyone: those at the largest distance ≤ minimum at which anyone is."""
    distance = (labels != labels[study]).sum(1)
    usable = allowed & (patients != patients[study])
    for required in range(min(minimum, labels.shape[1]), 0, -1):
        found = np.flatnonzero(usable & (distance >= required)).tolist()
        if found:
            return [int(number) for number in found]
    return []


def wished(
    labels: np.ndarray,
    patients: np.ndarray,
    minimum: int,
    study: int,
    *,
    left: np.ndarray,
    coin: int | None = None,
    scanners: np.ndarray | None = None,
) -> list[int]:
    """The rule of the docstring, word by word: distance, then scanner, direction, cap give way."""
    anyone = np.ones(len(labels), bool)
    num = labels.sum(1)
    direction = {None: anyone, 1: num < num[study], 0: num > num[study]}[coin]
    scanner = anyone
    if scanners is not None and scanners[study] != UNKNOWN_SCANNER:
        scanner = scanners == scanners[study]
    for cap, way in product((left, anyone), (direction, anyone)):
        for place in (scanner, anyone):
            found = eligible(labels, patients, minimum, study, cap & way & place)
            if found:
                return found
    return []


def exact(labels: np.ndarray, patients: np.ndarray, minimum: int, cap: int) -> dict[Any, float]:
    """Probability of every assignment, over all orders of turns."""
    total: dict[tuple[int, ...], float] = defaultdict(float)
    orders = list(permutations(range(len(labels))))

    def follow(order: tuple[int, ...], chosen: dict[int, int], share: float) -> None:
        if len(chosen) == len(order):
            total[tuple(chosen[n] for n in range(len(order)))] += share
            return
        study = order[len(chosen)]
        uses = Counter(chosen.values())
        left = np.array([uses[n] < cap for n in range(len(labels))])
        found = wished(labels, patients, minimum, study, left=left)
        for other in found:
            follow(order, {**chosen, study: other}, share / len(found))

    for order in orders:
        follow(order, {}, 1 / len(orders))
    return dict(total)


def test_a_cap_gives_exactly_the_distribution_of_taking_turns() -> None:
    expected = exact(LABELS, PATIENTS, 2, cap=1)
    assert len(expected) > 3
    num = 1500
    drawn = Counter(
        tuple(draw_constrained_partners(LABELS, PATIENTS, 2, seed, reuse_cap=1).index.tolist())
        for seed in range(num)
    )
    assert set(drawn) <= set(expected)
    outcomes = sorted(expected)
    counts, wanted = [drawn[o] for o in outcomes], [num * expected[o] for o in outcomes]
    assert min(wanted) > 5
    assert chisquare(counts, wanted).pvalue > 0.001


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("matched", [False, True])
def test_without_a_cap_each_study_draws_uniformly_by_its_wishes(
    *, balanced: bool, matched: bool
) -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (12, 5)).astype(np.uint8)
    patients = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    scanners = np.array([0, 1, 0, 1, 2, 0, 1, 0, 1, UNKNOWN_SCANNER, 0, 1]) if matched else None
    everyone = np.ones(12, bool)
    num = 600
    partners = np.array(
        [
            draw_constrained_partners(
                labels, patients, 3, seed, balanced=balanced, scanners=scanners
            ).index
            for seed in range(num)
        ]
    )
    for study in range(12):
        share: dict[int, float] = defaultdict(float)
        for coin in (0, 1) if balanced else (None,):
            found = wished(labels, patients, 3, study, left=everyone, coin=coin, scanners=scanners)
            for other in found:
                share[other] += num / len(found) / (2 if balanced else 1)
        drawn = Counter(partners[:, study].tolist())
        assert set(drawn) <= set(share)
        outcomes = sorted(share)
        wanted = [share[o] for o in outcomes]
        if len(outcomes) > 1:
            assert chisquare([drawn[o] for o in outcomes], wanted).pvalue > 1e-4


@given(cohorts(), st.integers(1, 6), st.integers(1, 2), st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_never_the_same_patient_nor_more_often_than_the_cap_allows(
    cohort: Arrays, minimum: int, cap: int, seed: int, balanced: bool
) -> None:
    labels, patients = cohort
    anyone = np.ones(len(labels), bool)
    if not all(eligible(labels, patients, 1, n, anyone) for n in range(len(labels))):
        with pytest.raises(CtscribeError, match="another patient whose labels differ"):
            draw_constrained_partners(
                labels, patients, minimum, seed, reuse_cap=cap, balanced=balanced
            )
        return
    drawn = draw_constrained_partners(
        labels, patients, minimum, seed, reuse_cap=cap, balanced=balanced
    )
    assert (patients[drawn.index] != patients).all()
    assert (drawn.distance == (labels != labels[drawn.index]).sum(1)).all()
    assert (drawn.distance >= minimum - drawn.relaxed_by).all()
    uses = np.bincount(drawn.index, minlength=len(labels))
    for volume in np.flatnonzero(uses > cap):
        # Only for want of anyone else: whoever was drawn too often was so by studies for which
        # all who differ are used up.
        want = [
            study
            for study in np.flatnonzero(drawn.index == volume)
            if (uses[eligible(labels, patients, 1, int(study), anyone)] >= cap).all()
        ]
        assert len(want) >= uses[volume] - cap


def test_balance_makes_partners_sicker_and_healthier_alike() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 18)) < 0.2).astype(np.uint8)
    patients = np.arange(600)

    def sicker(*, balanced: bool) -> float:
        index = draw_constrained_partners(labels, patients, 6, 0, balanced=balanced).index
        more = labels[index].sum(1).astype(int) - labels.sum(1)
        return float((more > 0).sum() / (more != 0).sum())

    assert sicker(balanced=False) > 0.6
    assert 0.45 < sicker(balanced=True) < 0.55
