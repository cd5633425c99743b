import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctscribe.reports.findings import FINDINGS
from ctscribe.second_look.choose import SMALL, Crop, choose_crops

NODULE, LARGE = FINDINGS.index(SMALL[0]), FINDINGS.index("Cardiomegaly")
COARSE_PX, FULL_PX = (56, 84), (112, 168)
DOUBLED = np.array([[2.0, 0, 0, 0.5], [0, 2.0, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Pixel edges agree: pixel 0 of a coarse frame covers pixels 0 and 1 of the full one."""


def choose(places: dict[tuple[int, int, int, int], float], count: int) -> tuple[Crop, ...]:
    """Crops for attention at (finding, pair, row, column); all findings are as likely."""
    attention = np.full((18, 3, 8, 12), 1e-6)
    for place, share in places.items():
        attention[place] = share
    return choose_crops(attention, np.full(18, 0.5), COARSE_PX, FULL_PX, DOUBLED, count)


def test_a_crop_is_centred_where_attention_is() -> None:
    # cell (4, 6) has its centre at coarse row 31, column 45; at 62.5, 90.5 of the full frame
    (crop,) = choose({(NODULE, 1, 4, 6): 0.9}, 1)
    assert crop.pair == 1
    assert abs(crop.top + 27.5 - 62.5) <= 0.5
    assert abs(crop.left + 41.5 - 90.5) <= 0.5


@pytest.mark.parametrize(
    ("cell", "top", "left"), [((0, 0), 0, 0), ((7, 11), 56, 84), ((0, 11), 0, 84)]
)
def test_a_crop_stays_inside_the_frame(cell: tuple[int, int], top: int, left: int) -> None:
    assert choose({(NODULE, 0, *cell): 0.9}, 1) == (Crop(0, top, left),)


def test_large_findings_do_not_lead() -> None:
    assert choose({(LARGE, 0, 4, 6): 0.99, (NODULE, 2, 4, 6): 0.1}, 1)[0].pair == 2


def test_what_a_crop_shows_is_not_shown_again_and_crops_come_by_pair() -> None:
    beside = {(NODULE, 2, 4, 6): 0.5, (NODULE, 2, 4, 7): 0.4, (NODULE, 0, 4, 6): 0.3}
    assert [crop.pair for crop in choose(beside, 2)] == [0, 2]
    apart = beside | {(NODULE, 2, 4, 0): 0.35}
    assert [crop.pair for crop in choose(apart, 2)] == [2, 2]


def test_probability_weighs_attention() -> None:
    attention = np.zeros((18, 2, 8, 12))
    other = FINDINGS.index(SMALL[1])
    attention[NODULE, 0, 4, 6], attention[other, 1, 4, 6] = 0.9, 0.6
    probability = np.zeros(18)
    probability[NODULE], probability[other] = 0.2, 0.8
    found = choose_crops(attention, probability, COARSE_PX, FULL_PX, DOUBLED, 1)
    assert found[0].pair == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_any_attention_gives_different_crops_inside(seed: int, count: int) -> None:
    attention = np.random.default_rng(seed).dirichlet(np.full(3 * 96, 0.05), 18)
    crops = choose_crops(
        attention.reshape(18, 3, 8, 12), np.full(18, 0.5), COARSE_PX, FULL_PX, DOUBLED, count
    )
    assert len(set(crops)) == count
    assert list(crops) == sorted(crops)
    assert all(0 <= crop.top <= 56 and 0 <= crop.left <= 84 for crop in crops)
