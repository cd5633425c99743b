from copy import deepcopy
from typing import Literal

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.decoding import Answer, write_reports
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import embed
from ctscribe.learn.model.tower import encode_frames
from tests.learn.model.batches import prompt, random_frames


@pytest.mark.parametrize("mode", ["index", "depth"])
def test_writing_equals_teacher_forcing_step_by_step(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    mode: Literal["index", "depth"],
) -> None:
    frames = [random_frames(4, 112, 112, 0), random_frames(4, 112, 140, 1)]
    grids = torch.tensor([[2, 8, 8], [2, 8, 10]])
    millimetres = torch.tensor([[100.0, 30.0], [90.0, 0.0]])
    prompts = [prompt(tokenizer, 32, "Write."), prompt(tokenizer, 40, "Describe this chest.")]
    with torch.inference_mode():
        features = [encode_frames(qwen, [f]) for f in frames]
    written = write_reports(
        qwen, tokenizer, prompts, torch.cat(features), grids, millimetres, mode, 12
    )
    for row, answer in enumerate(written):
        ids = prompts[row]
        for step, token in enumerate(answer.token_ids):
            with torch.inference_mode():
                place = position_ids(
                    qwen.config,
                    ids[None],
                    torch.ones(1, len(ids), dtype=torch.long),
                    grids[row : row + 1],
                    millimetres[row : row + 1],
                    mode,
                )
                hidden = qwen.model.language_model(
                    inputs_embeds=embed(qwen, ids[None], features[row]),
                    position_ids=place,
                    use_cache=False,
                ).last_hidden_state[0, -1]
                scores = qwen.lm_head(hidden).log_softmax(-1)
            assert int(scores.argmax()) == token
            assert float(scores.max()) == pytest.approx(answer.token_log_probs[step], abs=1e-4)
            ids = torch.cat([ids, torch.tensor([token])])
        assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()


def test_the_end_token_ends_a_report_and_the_limit_leaves_it_unfinished(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    with torch.inference_mode():
        features = encode_frames(qwen, [random_frames(2, 56, 56)])
    grid, question = torch.tensor([[1, 4, 4]]), [prompt(tokenizer, 4, "Write.")]

    def write(tokenizer: PreTrainedTokenizerBase) -> Answer:
        return write_reports(
            qwen, tokenizer, question, features, grid, torch.zeros(1, 1), "depth", 6
        )[0]

    free = write(tokenizer)
    assert not free.finished
    assert len(free.token_ids) == len(free.token_log_probs) == 6
    other = deepcopy(tokenizer)
    other.eos_token = tokenizer.convert_ids_to_tokens(free.token_ids[3])
    ended = write(other)
    assert ended.finished
    assert ended.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[3])]
