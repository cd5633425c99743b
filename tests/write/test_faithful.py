import json

import numpy as np
import pytest
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.measure.faithfulness import Checked, Truth, check, hit_by_chance, summarise
from ctscribe.scan.boxes import overlap, reach_of_slices
from ctscribe.show.tables import Value
from ctscribe.show.trust_tables import faithfulness_tables
from ctscribe.text.findings import FINDINGS
from ctscribe.write.evidence import ForcedReport, ReadReport

NODULE = FINDINGS.index("Lung nodule")
TRUTH = Truth(
    # columns 14…27, rows 0…13, slices 9…21: in the second and third of three pairs
    np.array([[[14.0, 27.0], [0.0, 13.0], [9.0, 21.0]]]),
    (NODULE,),
    reach_of_slices((50, 40, 30, 20, 10, 0)),
    (56, 56),
    7,
)


def test_where_the_truth_is_shown() -> None:
    assert TRUTH.pairs_with(NODULE).tolist() == [False, True, True]
    assert TRUTH.pairs_with(NODULE + 1).tolist() == [False] * 3
    assert TRUTH.boxes_in(NODULE, 1) == [(14, 0, 28, 14)]
    assert TRUTH.boxes_in(NODULE, 0) == []


@pytest.mark.parametrize(
    ("pairs", "true", "k", "expected"),
    [(5, 1, 1, 0.2), (5, 1, 3, 0.6), (5, 5, 1, 1.0), (5, 3, 3, 1.0), (10, 2, 3, 8 / 15)],
)
def test_hits_by_chance(pairs: int, true: int, k: int, expected: float) -> None:
    assert hit_by_chance(pairs, true, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0, 0, 10, 10), 1.0), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0.0), ((0, 0, 5, 5), 0.25)],
)
def test_overlap(other: tuple[int, int, int, int], expected: float) -> None:
    assert overlap((0, 0, 10, 10), other) == pytest.approx(expected)


def test_true_sentences_are_checked_and_curves_meet_at_their_ends(
    qwen: Qwen2_5_VLForConditionalGeneration, report: ReadReport, forced: ForcedReport
) -> None:
    checked = check(qwen, report, forced, TRUTH, seed=0)
    assert [each.finding for each in checked] == [NODULE, NODULE]
    for each in checked:
        assert (each.num_pairs, each.num_true) == (3, 2)
        assert set(each.rank) == {"attention", "leave_one_out", "random"}
        assert all(rank in (1, 2) for rank in each.rank.values())
        every = {curve[0] for curve in each.deletion.values()}
        every |= {curve[-1] for curve in each.insertion.values()}
        nothing = {curve[-1] for curve in each.deletion.values()}
        nothing |= {curve[0] for curve in each.insertion.values()}
        assert len(every) == len(nothing) == 1
        assert every != nothing


def checked(rank: int, true: int = 1) -> Checked:
    curves = dict.fromkeys(("attention", "random"), (-1.0, -2.0))
    ranks = {"attention": rank, "random": 4}
    return Checked(NODULE, 5, true, ranks, {"attention": 0.5}, curves, curves)


def test_hit_rates_are_means_over_sentences() -> None:
    found = summarise([("p1", checked(1)), ("p1", checked(2)), ("p2", checked(4, 4))])
    every = found["all"]
    assert (every["sentences"], every["scans"], found["focal"]["sentences"]) == (3, 2, 2)
    assert every["hit@1"]["attention"]["value"] == pytest.approx(1 / 3)
    assert every["hit@3"]["attention"]["value"] == pytest.approx(2 / 3)
    assert every["hit@3"]["random"]["value"] == 0
    assert every["hit@1"]["chance"]["value"] == pytest.approx((0.2 + 0.2 + 0.8) / 3)
    assert every["overlap"]["attention"]["value"] == 0.5
    assert every["overlap"]["random"]["value"] is None
    assert every["deletion"]["attention"] == [-1, -2]
    assert found["per_finding"][NODULE]["hit@3"]["attention"] == pytest.approx(2 / 3)
    json.dumps(found, allow_nan=False)
    queries, *_ = faithfulness_tables(found)[0].rows
    few = (None, None)
    assert queries == ("finding queries", Value(1 / 3, *few), Value(2 / 3, *few))


def test_nothing_to_check_is_no_number() -> None:
    found = summarise([])
    assert found["all"]["sentences"] == 0
    json.dumps(found, allow_nan=False)
    assert faithfulness_tables(found)[0].rows[0] == ("finding queries", "–", "–")
