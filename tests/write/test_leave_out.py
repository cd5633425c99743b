from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.text.prompt import encode_example
from ctscribe.write.evidence import ReadReport, ReportOnScan, log_probs

EVERY = frozenset({0, 1, 2})


def test_with_all_pairs_it_is_what_training_computes(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    report: ReadReport,
    visual: Visual,
    on_scan: ReportOnScan,
) -> None:
    ids, labels = encode_example(tokenizer, report.answer, visual.grid_thw)
    sample = Sample("a", torch.tensor(ids), torch.tensor(labels), visual)
    batch = collate_samples([sample], int(tokenizer.pad_token_id))
    with torch.inference_mode():
        expected = -answer_losses(qwen, batch, "depth").values
    torch.testing.assert_close(log_probs(qwen, on_scan, [EVERY])[0], expected)


def test_a_pair_left_out_is_as_if_masked(
    qwen: Qwen2_5_VLForConditionalGeneration, on_scan: ReportOnScan
) -> None:
    """Against attention that is forbidden to look at the pair's tokens, gate aside."""
    gate = qwen.slice_attention.gate.detach().clone()
    qwen.slice_attention.gate.data.zero_()
    try:
        kept = [frozenset({0, 2}), frozenset({2}), frozenset[int]()]
        found = log_probs(qwen, on_scan, kept)
        for each, scores in zip(kept, found, strict=True):
            torch.testing.assert_close(
                scores, masked(qwen, on_scan, EVERY - each), atol=2e-4, rtol=0
            )
    finally:
        qwen.slice_attention.gate.data.copy_(gate)


def masked(qwen: Any, on_scan: ReportOnScan, gone: frozenset[int]) -> torch.Tensor:  # noqa: ANN401
    is_video = on_scan.input_ids == qwen.config.video_token_id
    embeds = qwen.get_input_embeddings()(on_scan.input_ids)
    embeds = embeds.masked_scatter(is_video[:, None], on_scan.visual_tokens)
    pair = torch.full_like(on_scan.input_ids, -1)
    pair[is_video] = torch.arange(3).repeat_interleave(4)
    seen = torch.ones(len(embeds), len(embeds)).tril().bool()
    seen &= ~torch.isin(pair, torch.tensor(sorted(gone)))[None]
    seen |= torch.eye(len(embeds)).bool()
    bias = torch.where(seen, 0.0, -1e9)[None, None]
    with torch.inference_mode():
        hidden = qwen.model.language_model(
            inputs_embeds=embeds[None], attention_mask=bias, position_ids=on_scan.places
        ).last_hidden_state[0]
        scores = qwen.lm_head(hidden).log_softmax(-1)
    answer = on_scan.input_ids[on_scan.answer_start :]
    found: torch.Tensor = scores[on_scan.answer_start - 1 : -1].gather(1, answer[:, None])[:, 0]
    return found


def test_sets_do_not_disturb_each_other(
    qwen: Qwen2_5_VLForConditionalGeneration, on_scan: ReportOnScan
) -> None:
    kept = [frozenset({0}), EVERY, frozenset({1}), frozenset({0, 1})]
    together = log_probs(qwen, on_scan, kept)
    alone = torch.cat([log_probs(qwen, on_scan, [each]) for each in kept])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2])
