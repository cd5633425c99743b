from collections.abc import Sequence
from copy import deepcopy
from typing import Literal, TypeAlias

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.decoding import Answer, Contrast, prefill_volumes, write_reports
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import embed
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.prompt import encode_prompt
from tests.learn.model.batches import random_frames

Mode = Literal["index", "depth"]
Qwen: TypeAlias = Qwen2_5_VLForConditionalGeneration


def visual(
    qwen: Qwen,
    seed: int,
    width: int = 112,
    patient: str | None = None,
    cue: tuple[str, ...] | None = None,
) -> Visual:
    with torch.inference_mode():
        tokens = encode_frames(qwen, [random_frames(4, 112, width, seed)])
    grid = (2, 112 // 14, width // 14)
    return Visual(grid, (100.0 - seed, 30.0 - 9 * seed), None, tokens, patient, cue)


def next_log_probs(qwen: Qwen, ids: Tensor, shown: Visual, mode: Mode) -> Tensor:
    """What follows, from the whole text at once and without a cache."""
    assert shown.visual_tokens is not None
    places = torch.tensor([shown.grid_thw]), torch.tensor([shown.position_mm])
    with torch.inference_mode():
        place = position_ids(qwen.config, ids[None], torch.ones_like(ids)[None], *places, mode)
        hidden = qwen.model.language_model(
            inputs_embeds=embed(qwen, ids[None], shown.visual_tokens),
            position_ids=place,
            use_cache=False,
        ).last_hidden_state[0, -1]
        log_probs: Tensor = qwen.lm_head(hidden).log_softmax(-1)
    return log_probs


def of_words(tokenizer: PreTrainedTokenizerBase, scores: Tensor) -> Tensor:
    special = [n for n in tokenizer.added_tokens_decoder if n != tokenizer.eos_token_id]
    return scores.index_fill(0, torch.tensor(special), -torch.inf)


def contrast_with(
    qwen: Qwen,
    tokenizer: PreTrainedTokenizerBase,
    others: Sequence[Visual],
    mode: Mode = "depth",
    num_others: int = 1,
    weight: float = 0.5,
    plausibility: float = 0.1,
) -> Contrast:
    return Contrast(
        *prefill_volumes(qwen, tokenizer, others, mode),
        tuple(other.patient_id for other in others),
        num_others,
        weight,
        plausibility,
    )


@pytest.mark.parametrize("mode", ["index", "depth"])
def test_writing_equals_teacher_forcing_step_by_step(
    qwen: Qwen, tokenizer: PreTrainedTokenizerBase, mode: Mode
) -> None:
    shown = [visual(qwen, 0), visual(qwen, 1, 140, cue=("Emphysema",))]
    for scan, answer in zip(shown, write_reports(qwen, tokenizer, shown, mode, 12), strict=True):
        ids = torch.tensor(encode_prompt(tokenizer, scan.grid_thw, scan.cue))
        for step, token in enumerate(answer.token_ids):
            scores = next_log_probs(qwen, ids, scan, mode)
            assert int(of_words(tokenizer, scores).argmax()) == token
            assert float(scores[token]) == pytest.approx(answer.token_log_probs[step], abs=1e-4)
            ids = torch.cat([ids, torch.tensor([token])])
        assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("mode", ["index", "depth"])
def test_contrast_equals_its_formula_step_by_step(
    qwen: Qwen, tokenizer: PreTrainedTokenizerBase, mode: Mode
) -> None:
    # scans, and volumes they are held against, of different sizes, with cues of different lengths
    shown = [visual(qwen, 0, 112, "a", ()), visual(qwen, 1, 140, "b", ("Emphysema",))]
    others = [visual(qwen, 2, 140, "a"), visual(qwen, 3, 112, "c"), visual(qwen, 4, 112, "d")]
    against = [others[1:], others[:2]]  # of three the first two, never the own patient's
    contrast = contrast_with(qwen, tokenizer, others, mode, num_others=2, weight=2.0)
    written = write_reports(qwen, tokenizer, shown, mode, 12, contrast=contrast)
    assert written != write_reports(qwen, tokenizer, shown, mode, 12)
    for scan, wrong, answer in zip(shown, against, written, strict=True):
        ids = torch.tensor(encode_prompt(tokenizer, scan.grid_thw, scan.cue))
        question = ids[int((ids == qwen.config.video_token_id).nonzero()[-1]) + 1 :]
        for step, token in enumerate(answer.token_ids):
            own = next_log_probs(qwen, ids, scan, mode)
            so_far = torch.cat([question, torch.tensor(answer.token_ids[:step], dtype=torch.long)])
            other = torch.stack(
                [
                    next_log_probs(
                        qwen,
                        torch.cat([_upto_question(qwen, tokenizer, each), so_far]),
                        each,
                        mode,
                    )
                    for each in wrong
                ]
            ).mean(0)
            score = 3 * own - 2 * other
            likely = of_words(tokenizer, own).exp()
            score[likely < 0.1 * likely.max()] = -torch.inf
            assert int(score.argmax()) == token
            assert float(own[token]) == pytest.approx(answer.token_log_probs[step], abs=1e-4)
            ids = torch.cat([ids, torch.tensor([token])])


def _upto_question(qwen: Qwen, tokenizer: PreTrainedTokenizerBase, shown: Visual) -> Tensor:
    ids = torch.tensor(encode_prompt(tokenizer, shown.grid_thw))
    return ids[: int((ids == qwen.config.video_token_id).nonzero()[-1]) + 1]


def test_without_weight_or_without_rivals_contrast_writes_what_greedy_writing_does(
    qwen: Qwen, tokenizer: PreTrainedTokenizerBase
) -> None:
    shown, others = [visual(qwen, 0), visual(qwen, 1)], [visual(qwen, 2)]
    greedy = [answer.token_ids for answer in write_reports(qwen, tokenizer, shown, "depth", 12)]
    for knobs in ({"weight": 0.0}, {"weight": 3.0, "plausibility": 1.0}):
        contrast = contrast_with(qwen, tokenizer, others, **knobs)  # type: ignore[arg-type]
        written = write_reports(qwen, tokenizer, shown, "depth", 12, contrast=contrast)
        assert [answer.token_ids for answer in written] == greedy


def test_the_end_token_ends_a_report_and_the_limit_leaves_it_unfinished(
    qwen: Qwen, tokenizer: PreTrainedTokenizerBase
) -> None:
    shown = [visual(qwen, 0)]

    def write(tokenizer: PreTrainedTokenizerBase) -> Answer:
        return write_reports(qwen, tokenizer, shown, "depth", 6)[0]

    free = write(tokenizer)
    assert not free.finished
    assert len(free.token_ids) == len(free.token_log_probs) == 6
    other = deepcopy(tokenizer)
    other.eos_token = tokenizer.convert_ids_to_tokens(free.token_ids[3])
    ended = write(other)
    assert ended.finished
    assert ended.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[3])]


def test_no_special_token_is_written_however_likely(
    qwen: Qwen, tokenizer: PreTrainedTokenizerBase
) -> None:
    eager = deepcopy(qwen)
    pad = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    before = write_reports(eager, tokenizer, [visual(qwen, 0)], "depth", 6)[0]
    with torch.inference_mode():  # now the likeliest token everywhere
        eager.lm_head.weight[pad] = 10 * eager.lm_head.weight[before.token_ids[0]]
    draw = torch.Generator().manual_seed(0)
    for sample in (None, draw):
        written = write_reports(eager, tokenizer, [visual(qwen, 0)], "depth", 6, sample=sample)[0]
        assert pad not in written.token_ids
        assert written.text
    assert min(written.token_log_probs) < -1  # p(own) is still that of all tokens


def test_samples_are_drawn_by_probability(qwen: Qwen, tokenizer: PreTrainedTokenizerBase) -> None:
    scan = visual(qwen, 0)
    draw = torch.Generator().manual_seed(0)
    drawn = [
        answer.token_ids[0]
        for _ in range(8)
        for answer in write_reports(qwen, tokenizer, [scan] * 64, "depth", 1, sample=draw)
        if answer.token_ids
    ]
    ids = torch.tensor(encode_prompt(tokenizer, scan.grid_thw))
    expected = of_words(tokenizer, next_log_probs(qwen, ids, scan, "depth")).exp()
    expected[tokenizer.eos_token_id] = 0
    counted = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / len(drawn)
    halves = torch.split(expected.argsort(descending=True), len(expected) // 8)
    for half in halves:
        share = float(expected[half].sum() / expected.sum())
        spread = 4 * (share * (1 - share) / len(drawn)) ** 0.5 + 1e-3
        assert float(counted[half].sum()) == pytest.approx(share, abs=spread)
