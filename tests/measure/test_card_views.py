from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.build import noise_seeds
from ctscribe.measure.card import make_views
from ctscribe.measure.card_views import FROM_VOLUMES, VIEWS, draw_dropped, draw_order
from ctscribe.scan.frames import WINDOWS, air_frames
from ctscribe.write.writer import ReportWriter, View
from tests.measure.small import STUDIES

Shown = tuple[Qwen2_5_VLForConditionalGeneration, dict[str, View], Callable[[int], Tensor]]


@pytest.fixture(scope="module")
def shown(make_run: Callable[[bool], Path], prepared: Prepared) -> Shown:
    writer = ReportWriter(make_run(False))
    store = writer.features(prepared, STUDIES, noise=True)
    strangers = dict(zip([s.volume_name for s in STUDIES], STUDIES[1:] + STUDIES[:1], strict=True))

    def frames(number: int) -> Tensor:
        return torch.from_numpy(np.array(prepared.frames(STUDIES[number])))

    return writer.qwen, make_views(writer.qwen, store, strangers), frames


def assert_encodes(shown: Shown, view: str, study: StudyRow, frames: Tensor) -> None:
    qwen, views, _ = shown
    visual = views[view](study)
    assert visual.visual_tokens is not None
    assert visual.grid_thw == (3, 4, 4)
    assert visual.position_mm == (97.5, 67.5, 37.5)
    with torch.inference_mode():
        expected = encode_frames(qwen, [frames])
    torch.testing.assert_close(visual.visual_tokens, expected, rtol=1e-4, atol=1e-4)


def test_every_view_is_there_and_the_plain_ones_show_what_they_say(shown: Shown) -> None:
    assert [*shown[1]] == [view for view in VIEWS if view not in FROM_VOLUMES]
    assert_encodes(shown, "real", STUDIES[0], shown[2](0))
    assert_encodes(shown, "other_patient", STUDIES[0], shown[2](1))
    air = torch.from_numpy(air_frames(6, (56, 56), WINDOWS["single"]))
    assert_encodes(shown, "blank", STUDIES[0], air)


def test_shuffled_is_what_the_tower_makes_of_shuffled_slice_pairs(shown: Shown) -> None:
    order = draw_order(3, noise_seeds([STUDIES[0].volume_name], 0)[0])
    marked = shown[2](0).reshape(3, 2, 56, 56, 3)
    assert_encodes(shown, "shuffled", STUDIES[0], marked[torch.from_numpy(order)].flatten(0, 1))


def test_dropped_is_what_the_tower_makes_of_slice_pairs_replaced_by_air(shown: Shown) -> None:
    gone = draw_dropped(3, 0.5, noise_seeds([STUDIES[0].volume_name], 0)[0])
    marked = shown[2](0).reshape(3, 2, 56, 56, 3).clone()
    marked[torch.from_numpy(gone)] = 0
    assert gone.sum() == 2
    assert_encodes(shown, "dropped", STUDIES[0], marked.flatten(0, 1))


def test_noise_is_the_same_every_time_and_another_for_another_study(shown: Shown) -> None:
    first, again, other = (shown[1]["noise"](STUDIES[i]).visual_tokens for i in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(st.integers(2, 40), st.integers(0, 2**31))
def test_no_slice_pair_keeps_its_place(num_pairs: int, seed: int) -> None:
    order = draw_order(num_pairs, seed)
    assert sorted(order) == list(range(num_pairs))
    assert (order != np.arange(num_pairs)).all()


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_the_share_is_dropped_and_something_stays(num_pairs: int, share: float, seed: int) -> None:
    gone = draw_dropped(num_pairs, share, seed)
    assert gone.sum() == min(num_pairs - 1, np.ceil(share * num_pairs))
