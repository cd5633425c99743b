"""Choices among reports: the same as looking at all the others for every patient, in less."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from ctscribe.measure import pool as pool_module
from ctscribe.measure.pool import Pool
from ctscribe.measure.scans import ScanReport

NUM_LABELS = 18
TEXTS = ("", "a", "b", "a b", "b a", "a a b", "a b b", "b b", "a a a b", "c a", "c c")


def report(number: int, patient: int, text: str, num_findings: int) -> ScanReport:
    labels = tuple(int(place < num_findings) for place in range(NUM_LABELS))
    return ScanReport(f"s{number:05}", f"p{patient}", text, "", labels)


Rows = list[tuple[int, str, int]]
"""Patient, text and number of findings."""


def cohorts() -> st.SearchStrategy[Rows]:
    """Few words, texts and patients, so that equals and patients with most of a text are common."""
    texts = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6)
    rows = texts.flatmap(lambda some: st.lists(row(some), min_size=1, max_size=14))
    return rows.map(lambda some: [*some, (6, "a", 1)])  # two patients or more


def row(texts: list[str]) -> st.SearchStrategy[tuple[int, str, int]]:
    return st.tuples(st.integers(0, 5), st.sampled_from(texts), st.integers(0, 2))


def made(rows: Rows) -> list[ScanReport]:
    return [report(number, *each) for number, each in enumerate(rows)]


def naive_medoid(reports: list[ScanReport]) -> ScanReport:
    counts = [Counter(each.text.split()) for each in reports]
    total = sum(count.total() for count in counts)
    scores = [
        sum((own & count).total() for count in counts) / max(1, len(reports) * own.total() + total)
        for own in counts
    ]
    return reports[scores.index(max(scores))]


def naive_normal(reports: list[ScanReport]) -> ScanReport:
    fewest = min(sum(each.labels) for each in reports)
    normal = [each for each in reports if sum(each.labels) == fewest]
    uses = Counter(each.text for each in normal)
    return naive_medoid([each for each in normal if uses[each.text] == max(uses.values())])


def naive_draw(
    reports: list[ScanReport], of: ScanReport, rng: np.random.Generator, *, by_labels: bool
) -> ScanReport:
    labels = np.array([each.labels for each in reports])
    allowed = np.array([each.patient_id != of.patient_id for each in reports])
    if by_labels:
        distance = (labels != np.array(of.labels)).sum(axis=1)
        allowed &= distance == distance[allowed].min()
    return reports[int(rng.choice(np.flatnonzero(allowed)))]


@pytest.mark.parametrize("tried_first", [1, 64])
@given(cohorts())
@settings(max_examples=150, deadline=None)
def test_each_patient_is_answered_as_from_all_the_others(tried_first: int, rows: Rows) -> None:
    reports = made(rows)
    pool, left_out = Pool.of(reports[::-1]), [None, *(each.patient_id for each in reports)]
    others = [[each for each in reports if each.patient_id != name] for name in left_out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "_TRIED_FIRST", tried_first)
        assert pool.medoids(left_out) == list(map(naive_medoid, others))
        assert pool.normal_reports(left_out) == list(map(naive_normal, others))


@pytest.mark.parametrize("by_labels", [False, True])
@given(cohorts(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_the_same_seed_draws_what_choosing_among_all_draws(
    by_labels: bool, rows: Rows, seed: int
) -> None:
    reports = made(rows)
    rng = np.random.default_rng(seed)
    expected = [naive_draw(reports, each, rng, by_labels=by_labels) for each in reports]
    rng = np.random.default_rng(seed)
    assert Pool.of(reports).draw(reports, rng, by_labels=by_labels) == expected


def test_memory_grows_with_the_reports_and_not_with_their_square() -> None:
    def peak(number: int) -> int:
        rng = np.random.default_rng(0)
        texts = [" ".join(map(str, rng.integers(0, 500, 40))) for _ in range(number)]
        reports = [report(n, n, text, n % 3) for n, text in enumerate(texts)]
        left_out = [each.patient_id for each in reports]
        tracemalloc.start()
        pool = Pool.of(reports)
        pool.medoids(left_out)
        pool.normal_reports(left_out)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(2400) < 6 * peak(600)


def test_more_patients_do_not_count_the_words_again(monkeypatch: pytest.MonkeyPatch) -> None:
    products = 0

    def counted(left: csr_matrix, right: object) -> object:
        nonlocal products
        products += 1
        return spmatrix_matmul(left, right)

    spmatrix_matmul = csr_matrix.__matmul__
    monkeypatch.setattr(csr_matrix, "__matmul__", counted)
    needed = []
    for number in (50, 200):
        reports = [report(n, n, f"the heart is normal {n}", n % 3) for n in range(number)]
        before, left_out = products, [each.patient_id for each in reports]
        Pool.of(reports).medoids(left_out)
        Pool.of(reports).normal_reports(left_out)
        needed.append(products - before)
    assert needed[1] <= 2 * needed[0] < 50
