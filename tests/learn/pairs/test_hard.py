from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import GapRow, PairRow, read_rows
from ctscribe.base.types import Labels
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.build import build_training_pairs
from ctscribe.learn.pairs.hard import (
    appearances,
    hard_negatives,
    nearest_contradictions,
    refresh_hard,
)
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS
from tests.learn.pairs.test_heter import Arrays, cohorts
from tests.studies import study_row, write_prepared


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


def drawn_negatives(nearest: np.ndarray, seed: int) -> list[PairRow]:
    return [*hard_negatives(NAMES, LABELS, nearest, seed)]


def negatives(gap_of: dict[tuple[str, str], float]) -> tuple[list[PairRow], list[GapRow]]:
    rows = drawn_negatives(np.array([[1, 2, 3], [0, 2, 3], [0, 1, -1], [0, 1, -1]]), 0)
    return rows, [GapRow(study=s, volume=v, gap=gap) for (s, v), gap in gap_of.items()]


NAMES = ["a", "b", "c", "d"]
LABELS = np.zeros((4, 18), np.uint8)
LABELS[1, 0] = LABELS[2, 1] = LABELS[3, 1] = 1
BY_NAME: dict[str, Labels] = {n: tuple(row) for n, row in zip(NAMES, LABELS.tolist(), strict=True)}


def test_first_partners_are_drawn_from_the_alternatives() -> None:
    nearest = np.array([[1, 2, -1], [0, 2, -1], [0, 1, -1], [1, 2, -1]])
    drawn = Counter(drawn_negatives(nearest, seed)[0].volume for seed in range(400))
    assert set(drawn) == {"b", "c"}
    assert chisquare([*drawn.values()]).pvalue > 0.001
    row = drawn_negatives(nearest, 0)[3]
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


def frames(seed: int, brightness: int = 100, noise: int = 4) -> Frames:
    rng = np.random.default_rng(seed)
    grey = rng.integers(brightness - noise, brightness + noise, (4, 28, 28, 3))
    return grey.astype(np.uint8)


def nearest_to_first(prepared: Prepared) -> int:
    rows = appearances(prepared, prepared.studies)
    return 1 + int(np.linalg.norm(rows[1:] - rows[0], axis=1).argmin())


@pytest.mark.parametrize(
    ("knob", "alike", "other"),
    [
        ("manufacturer", "X", "Y"),
        ("sex", "F", "M"),
        ("age_years", 61.0, 24.0),
        ("spacing_mm", (1.0, 1.0, 1.0), (0.6, 0.6, 1.0)),
        ("position_mm", (7.0, 5.0, 3.0, 1.0), (70.0, 50.0, 30.0, 10.0)),
    ],
)
def test_what_prepare_knows_of_scan_and_patient_counts(
    tmp_path: Path, knob: str, alike: object, other: object
) -> None:
    studies = [
        study_row(f"s{n}").model_copy(update={knob: value})
        for n, value in enumerate((alike, other, alike, other))
    ]
    prepared = write_prepared(tmp_path, studies, frames=[frames(seed=0)] * 4)
    assert nearest_to_first(prepared) == 2


@pytest.mark.parametrize(("knob", "values"), [("brightness", (80, 160)), ("noise", (3, 30))])
def test_what_the_frames_show_counts(tmp_path: Path, knob: str, values: tuple[int, int]) -> None:
    studies = [study_row(f"s{n}") for n in range(4)]
    shown = [frames(seed=n, **{knob: values[n % 2]}) for n in range(4)]
    assert nearest_to_first(write_prepared(tmp_path, studies, frames=shown)) == 2


def test_the_unknown_lies_in_the_middle(tmp_path: Path) -> None:
    studies = [study_row(f"s{n}", age_years=age) for n, age in enumerate((20.0, None, 80.0))]
    prepared = write_prepared(tmp_path, studies, frames=[frames(seed=0)] * 3)
    rows = appearances(prepared, studies)
    assert np.isfinite(rows).all()
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(np.linalg.norm(rows[2] - rows[1]))


def test_hard_pairs_show_the_nearest_other_patients(tmp_path: Path) -> None:
    ill = (1,) + (0,) * 17
    names = [f"train_{n}_a_1.nii.gz" for n in range(20)]
    studies = [
        study_row(name, split="train", labels=ill if n % 2 else (0,) * 18)
        for n, name in enumerate(names)
    ]
    config = PairsConfig(strategy="hard", num_alternatives=2)
    shown = [frames(seed=0, brightness=40 + 10 * (n // 2)) for n in range(20)]
    build_training_pairs(write_prepared(tmp_path, studies, frames=shown), tmp_path, config)
    rows = read_rows(tmp_path / "pairs.jsonl", PairRow)
    number = {name: n for n, name in enumerate(names)}
    for row in rows[1::2]:
        assert row.alternatives is not None
        assert row.volume in row.alternatives
        assert row.label_distance == 1
        own = number[row.study]
        assert all(number[other] % 2 != own % 2 for other in row.alternatives)
        assert abs(number[row.alternatives[0]] // 2 - own // 2) <= 1


def test_patients_who_are_all_alike_have_no_hard_negative(tmp_path: Path) -> None:
    studies = [study_row(f"train_{n}_a_1.nii.gz", labels=(0,) * 18) for n in range(3)]
    prepared = write_prepared(tmp_path, studies, frames=[frames(seed=0)] * 3)
    with pytest.raises(CtscribeError, match="another patient whose labels differ"):
        build_training_pairs(prepared, tmp_path, PairsConfig(strategy="hard"))
