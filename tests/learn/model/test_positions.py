from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.positions import position_ids

VIDEO, TEXT, PAD = 7, 1, 0
CONFIG = Qwen2_5_VLConfig(video_token_id=VIDEO, vision_config={"tokens_per_second": 2})


def tokens(before: int, grid: tuple[int, int, int], after: int) -> list[int]:
    return [TEXT] * before + [VIDEO] * (grid[0] * grid[1] * grid[2] // 4) + [TEXT] * after


def place(
    ids: list[int], grid: tuple[int, int, int], mode: Literal["index", "depth"], mm: list[float]
) -> torch.Tensor:
    row = torch.tensor([ids])
    return position_ids(
        CONFIG, row, (row != PAD).long(), torch.tensor([grid]), torch.tensor([mm]), mode
    )


@given(
    pairs=st.integers(1, 6),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    before=st.integers(1, 5),
    after=st.integers(1, 9),
    padding=st.integers(0, 3),
    left=st.booleans(),
)
def test_index_equals_the_installed_transformers_in_the_safe_regime(
    qwen: Qwen2_5_VLForConditionalGeneration,
    pairs: int,
    rows: int,
    columns: int,
    before: int,
    after: int,
    padding: int,
    left: bool,
) -> None:
    if 2 * (pairs - 1) >= max(rows, columns):
        return
    video = qwen.config.video_token_id
    grid = torch.tensor([[pairs, 2 * rows, 2 * columns], [1, 4, 2]])
    longest = before + max(pairs * rows * columns, 2) + after + padding
    ids = torch.zeros(2, longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, count in enumerate((pairs * rows * columns, 2)):
        content = torch.tensor([1] * before + [video] * count + [1] * after)
        start = longest - len(content) if left else 0
        ids[row, start : start + len(content)] = content
        mask[row, start : start + len(content)] = 1
    expected, _ = qwen.model.get_rope_index(
        input_ids=ids,
        mm_token_type_ids=(ids == video).int() * 2,
        video_grid_thw=grid,
        second_per_grid_ts=torch.tensor([1.0, 1.0]),
        attention_mask=mask,
    )
    ours = position_ids(qwen.config, ids, mask, grid, torch.zeros(2, pairs), "index")
    assert torch.equal(ours, expected.long())


def test_index_is_refused_where_releases_disagree() -> None:
    with pytest.raises(CtscribeError, match=r"time index \(8\) below .* \(4\).*E_POSITIONS"):
        place(tokens(2, (5, 8, 8), 3), (5, 8, 8), "index", [0.0] * 5)


def test_depth_follows_millimetres_and_text_starts_after_everything() -> None:
    grid = (4, 4, 2)
    found = place(tokens(2, grid, 3), grid, "depth", [100.0, 80.0, 77.4, 20.0])[:, 0]
    assert found[:, :2].tolist() == [[0, 1]] * 3
    # 5 mm a step from the most cranial pair: 0, 4, 4.52 → one step apart, 16
    assert found[0, 2:10].tolist() == [2, 2, 6, 6, 7, 7, 18, 18]
    assert found[1, 2:10].tolist() == [2, 3] * 4
    assert found[2, 2:10].tolist() == [2, 2] * 4
    assert found[:, 10:].tolist() == [[19, 20, 21]] * 3


@given(
    st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=60, unique=True),
)
def test_depth_keeps_the_order_of_slices_visible(mm: list[float]) -> None:
    grid = (len(mm), 2, 2)
    time = place(tokens(1, grid, 1), grid, "depth", mm)[0, 0, 1:-1]
    by_depth = sorted(range(len(mm)), key=lambda i: -mm[i])
    distinct = time[by_depth].diff()
    gaps = torch.tensor(mm)[by_depth].diff()
    assert bool((distinct[gaps < -1e-3] >= 1).all())
    assert int(time.min()) == 1


def test_a_slice_read_again_stands_where_it_is() -> None:
    grid = (3, 2, 2)
    time = place(tokens(1, grid, 1), grid, "depth", [50.0, 0.0, 50.0])[0, 0, 1:-1]
    assert time.tolist() == [1, 11, 1]


@pytest.mark.parametrize(
    ("ids", "mm", "sentence"),
    [
        (tokens(1, (2, 2, 2), 1), [0.0, float("nan")], "not finite"),
        (tokens(1, (2, 2, 2), 1), [0.0], "2 pairs came with 1"),
        (tokens(1, (3, 2, 2), 1), [0.0, 9.0], "run of 2 .* holds 3"),
        ([VIDEO, TEXT, VIDEO], [0.0, 9.0], "unbroken run"),
        ([TEXT, TEXT], [0.0, 9.0], "holds 0"),
    ],
)
def test_what_does_not_fit_is_refused(ids: list[int], mm: list[float], sentence: str) -> None:
    with pytest.raises(CtscribeError, match=sentence):
        place(ids, (2, 2, 2), "depth", mm)
