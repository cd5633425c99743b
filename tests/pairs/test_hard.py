from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctscribe.pairs.hard import (
    balanced_contradictions,
    hard_negatives,
    nearest_contradictions,
    refresh_hard,
)
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import GapRow, PairRow
from ctscribe.types import Labels
from tests.pairs.test_negatives import Arrays, cohorts


def brute_force(
    labels: np.ndarray, patients: np.ndarray, appearance: np.ndarray, study: int
) -> list[int]:
    """Everyone who contradicts the study, the nearest first."""
    own = labels[study]
    stated = own == 1 if own.any() else np.ones_like(own, bool)
    contradicts = ((labels != own) & stated).any(1) & (patients != patients[study])
    distance = (labels != own).sum(1)
    apart = np.linalg.norm(appearance - appearance[study], axis=1)
    found = np.flatnonzero(contradicts)
    return [int(n) for n in sorted(found, key=lambda n: (distance[n], apart[n]))]


@given(cohorts(), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_nearest_contradictions_are_those_of_looking_at_everyone(
    cohort: Arrays, num: int, seed: int
) -> None:
    labels, patients = cohort
    appearance = np.random.default_rng(seed).random((len(labels), 3))
    nearest = nearest_contradictions(labels, patients, appearance, num)
    for study in range(len(labels)):
        expected = brute_force(labels, patients, appearance, study)[:num]
        assert nearest[study].tolist() == expected + [-1] * (num - len(expected))


@given(cohorts(), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_balanced_contradictions_are_the_nearest_on_either_side(
    cohort: Arrays, num: int, seed: int
) -> None:
    labels, patients = cohort
    appearance = np.random.default_rng(seed).random((len(labels), 3))
    nearest, both = balanced_contradictions(labels, patients, appearance, num)
    count = labels.sum(1).astype(int)
    half = (num + 1) // 2
    for study in range(len(labels)):
        everyone = brute_force(labels, patients, appearance, study)
        more = [n for n in everyone if count[n] > count[study]]
        fewer = [n for n in everyone if count[n] < count[study]]
        assert both[study] == bool(more and fewer)
        expected = more[:half] + fewer[:half] if both[study] else everyone[:num]
        assert [n for n in nearest[study] if n >= 0] == expected


BALANCED_NAMES = ["own", "more", "fewer1", "fewer2", "fewer3"]
BALANCED = np.zeros((5, 18), np.uint8)
BALANCED[0, :3] = BALANCED[1, 1:6] = BALANCED[2, :2] = BALANCED[3, 1:3] = BALANCED[4, 2] = 1
BALANCED_BY_NAME: dict[str, Labels] = {
    name: tuple(row) for name, row in zip(BALANCED_NAMES, BALANCED.tolist(), strict=True)
}


def balanced_row(seed: int) -> PairRow:
    """A study's with one partner who has more findings, and three who have fewer."""
    nearest, both = np.array([[1, -1, 2, 3, 4]] * 5), np.arange(5) == 0
    return hard_negatives(BALANCED_NAMES, BALANCED, nearest, seed, both)[0]


def test_either_side_is_shown_with_equal_chance_and_on_it_each_partner() -> None:
    num = 600
    drawn = Counter(balanced_row(seed).volume for seed in range(num))
    shares = [1 / 2, 1 / 6, 1 / 6, 1 / 6]
    wanted = [num * share for share in shares]
    assert chisquare([drawn[name] for name in BALANCED_NAMES[1:]], wanted).pvalue > 0.001


def test_epochs_keep_the_balance_whatever_is_told_apart() -> None:
    row = balanced_row(0)
    assert row.balanced
    assert row.alternatives == tuple(BALANCED_NAMES[1:])
    # the side is a coin's, though "more" is the least told apart; on the other side gaps decide
    known = {"fewer1": 0.0, "fewer2": 2.0, "more": -3.0, "fewer3": 5.0}
    gaps = [GapRow(study="own", volume=name, gap=gap) for name, gap in known.items()]
    spread = np.std([*known.values()])
    weights = np.exp([-known[f"fewer{n}"] / spread for n in (1, 2, 3)])
    shares = [1 / 2, *weights / weights.sum() / 2]
    num = 600
    rows = [row]
    drawn: Counter[str | None] = Counter()
    for epoch in range(1, num + 1):
        rows = refresh_hard(rows, gaps, BALANCED_BY_NAME, 0, epoch)
        drawn[rows[0].volume] += 1
        assert rows[0].balanced
        assert rows[0].alternatives == row.alternatives
    wanted = [num * share for share in shares]
    assert chisquare([drawn[name] for name in BALANCED_NAMES[1:]], wanted).pvalue > 0.001


def negatives(gap_of: dict[tuple[str, str], float]) -> tuple[list[PairRow], list[GapRow]]:
    rows = hard_negatives(
        NAMES, LABELS, np.array([[1, 2, 3], [0, 2, 3], [0, 1, -1], [0, 1, -1]]), 0
    )
    return rows, [GapRow(study=s, volume=v, gap=gap) for (s, v), gap in gap_of.items()]


NAMES = ["a", "b", "c", "d"]
LABELS = np.zeros((4, 18), np.uint8)
LABELS[1, 0] = LABELS[2, 1] = LABELS[3, 1] = 1
BY_NAME: dict[str, Labels] = {n: tuple(row) for n, row in zip(NAMES, LABELS.tolist(), strict=True)}


def test_first_partners_are_drawn_from_the_alternatives() -> None:
    nearest = np.array([[1, 2, -1]] * 4)
    drawn = Counter(hard_negatives(NAMES, LABELS, nearest, seed)[0].volume for seed in range(400))
    assert set(drawn) == {"b", "c"}
    assert chisquare([*drawn.values()]).pvalue > 0.001
    row = hard_negatives(NAMES, LABELS, nearest, 0)[3]
    assert row.alternatives == ("b", "c")
    assert row.disputed == tuple(
        f
        for f, x, y in zip(FINDINGS, BY_NAME["d"], BY_NAME[str(row.volume)], strict=True)
        if x != y
    )
    assert row.label_distance == len(row.disputed)


def test_epochs_draw_most_what_is_not_yet_told_apart() -> None:
    rows, gaps = negatives({("a", "b"): 0.0, ("a", "c"): 2.0, ("b", "a"): 0.0, ("c", "a"): 2.0})
    # By hand: the mean gap is 1, the spread 1; (a, d) disputes the second finding, whose pairs
    # (a, c) and (c, a) have the mean gap 2. So a draws b, c and d as 1 : e^−2 : e^−2.
    weights = np.exp([0.0, -2.0, -2.0])
    num = 500
    drawn = Counter(
        next(r.volume for r in refresh_hard(rows, gaps, BY_NAME, 0, epoch) if r.study == "a")
        for epoch in range(1, num + 1)
    )
    wanted = num * weights / weights.sum()
    assert chisquare([drawn["b"], drawn["c"], drawn["d"]], wanted).pvalue > 0.001


def test_a_refresh_is_a_pure_function_of_its_arguments() -> None:
    rows, gaps = negatives({("a", "b"): 0.3, ("b", "c"): 1.0, ("c", "a"): 0.1})
    first = refresh_hard(rows, gaps, BY_NAME, 3, 2)
    again = refresh_hard(refresh_hard(rows, gaps, BY_NAME, 3, 1), gaps[::-1], BY_NAME, 3, 2)
    assert first == again
    assert refresh_hard(rows[::-1], gaps, BY_NAME, 3, 2) == first[::-1]
    others = [refresh_hard(rows, gaps, BY_NAME, 3, epoch) for epoch in range(3, 12)]
    assert any(other != first for other in others)
    for row in first:
        assert row.alternatives is not None
        assert row.volume in row.alternatives
        assert row.disputed is not None
        assert row.label_distance == len(row.disputed) > 0


@pytest.mark.parametrize("gap", [None, 0.7])
def test_without_differences_to_go_by_every_alternative_is_equally_likely(
    gap: float | None,
) -> None:
    rows, gaps = negatives({} if gap is None else {("a", "b"): gap, ("b", "a"): gap})
    drawn = Counter(refresh_hard(rows, gaps, BY_NAME, 0, epoch)[0].volume for epoch in range(300))
    assert chisquare([drawn[name] for name in "bcd"]).pvalue > 0.001


def test_other_rows_stay_as_they_are() -> None:
    rows = [
        PairRow(study="a", role="positive", volume="a"),
        PairRow(study="a", role="negative", volume="b", label_distance=1),
    ]
    assert refresh_hard(rows, [], BY_NAME, 0, 1) == rows
