"""What each sentence rests on: pairs left out, attention, and the rows that tell it."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.scan.boxes import box_around_peak
from ctscribe.text.prompt import encode_example
from ctscribe.write.evidence import (
    ForcedReport,
    PairEvidence,
    ReadReport,
    SentenceEvidence,
    attention_of,
    explain,
    leave_one_out,
    locate_in_scan,
    log_prob_drops,
    log_probs,
    rank_pairs,
    sentence_rows,
)
from ctscribe.write.token_planes import ShownSlices, plane_locator

EVERY = frozenset({0, 1, 2})
SLICES = (50, 40, 30, 20, 10, 0)


def test_with_all_pairs_it_is_what_training_computes(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    report: ReadReport,
    visual: Visual,
    forced: ForcedReport,
) -> None:
    ids, labels = encode_example(tokenizer, report.answer, visual.grid_thw)
    sample = Sample("a", torch.tensor(ids), torch.tensor(labels), visual)
    batch = collate_samples([sample], int(tokenizer.pad_token_id))
    with torch.inference_mode():
        expected = -answer_losses(qwen, batch, "depth").values
    torch.testing.assert_close(log_probs(qwen, forced, [EVERY])[0], expected)


def test_a_pair_left_out_is_as_if_masked(
    qwen: Qwen2_5_VLForConditionalGeneration, forced: ForcedReport
) -> None:
    """Against attention that is forbidden to look at the pair's tokens, gate aside."""
    gate = qwen.slice_attention.gate.detach().clone()
    qwen.slice_attention.gate.data.zero_()
    try:
        kept = [frozenset({0, 2}), frozenset({2}), frozenset[int]()]
        found = log_probs(qwen, forced, kept)
        for each, scores in zip(kept, found, strict=True):
            torch.testing.assert_close(
                scores, masked(qwen, forced, EVERY - each), atol=2e-4, rtol=0
            )
    finally:
        qwen.slice_attention.gate.data.copy_(gate)


def masked(qwen: Any, forced: ForcedReport, gone: frozenset[int]) -> torch.Tensor:  # noqa: ANN401
    is_video = forced.input_ids == qwen.config.video_token_id
    embeds = qwen.get_input_embeddings()(forced.input_ids)
    embeds = embeds.masked_scatter(is_video[:, None], forced.visual_tokens)
    pair = torch.full_like(forced.input_ids, -1)
    pair[is_video] = torch.arange(3).repeat_interleave(4)
    seen = torch.ones(len(embeds), len(embeds)).tril().bool()
    seen &= ~torch.isin(pair, torch.tensor(sorted(gone)))[None]
    seen |= torch.eye(len(embeds)).bool()
    bias = torch.where(seen, 0.0, -1e9)[None, None]
    with torch.inference_mode():
        hidden = qwen.model.language_model(
            inputs_embeds=embeds[None], attention_mask=bias, position_ids=forced.position_ids
        ).last_hidden_state[0]
        scores = qwen.lm_head(hidden).log_softmax(-1)
    answer = forced.input_ids[forced.answer_start :]
    found: torch.Tensor = scores[forced.answer_start - 1 : -1].gather(1, answer[:, None])[:, 0]
    return found


def test_sets_do_not_disturb_each_other(
    qwen: Qwen2_5_VLForConditionalGeneration, forced: ForcedReport
) -> None:
    kept = [frozenset({0}), EVERY, frozenset({1}), frozenset({0, 1})]
    together = log_probs(qwen, forced, kept)
    alone = torch.cat([log_probs(qwen, forced, [each]) for each in kept])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2])


def test_drops_add_up_over_a_sentences_tokens(report: ReadReport) -> None:
    tokens = report.tokens.shape[1]
    scores = torch.zeros(4, tokens + 1)
    scores[0] = -0.1
    scores[2] = -0.5
    total, drops = log_prob_drops(scores, report)
    lengths = report.tokens.sum(1).float()
    torch.testing.assert_close(total, -0.1 * lengths)
    torch.testing.assert_close(drops[:, 1], 0.4 * lengths)
    torch.testing.assert_close(drops[:, 0], -0.1 * lengths)


def test_every_sentence_gets_its_slices(
    qwen: Qwen2_5_VLForConditionalGeneration,
    report: ReadReport,
    visual: Visual,
    forced: ForcedReport,
) -> None:
    millimetres = (55.0, 45.0, 5.0, -5.0, -45.0, -55.0)
    shown = ShownSlices(SLICES, millimetres, np.eye(4), (56, 56), 60)
    evidence = explain(qwen, report, forced, plane_locator(visual, shown, 7, of_encoder=False))
    assert [each.text for each in evidence] == [each.text for each in report.sentences]
    total, drops = log_prob_drops(log_probs(qwen, forced, leave_one_out(3)), report)
    assert locate_in_scan(qwen, forced) is not None
    for number, each in enumerate(evidence):
        assert each.log_prob == pytest.approx(float(total[number]))
        assert {pair.slice_indices for pair in each.pairs} == {(50, 40), (30, 20), (10, 0)}
        for pair in each.pairs:
            place = (50, 30, 10).index(pair.slice_indices[0])
            assert pair.position_mm == millimetres[2 * place : 2 * place + 2]
            assert pair.drop == pytest.approx(float(drops[number, place]))
            assert (pair.box_px is not None) == bool(each.findings)
    nodule = evidence[1]
    assert nodule.findings == ("Lung nodule",)
    shares = [pair.attention for pair in nodule.pairs]
    assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
    assert sum(share or 0 for share in shares) == pytest.approx(1)
    stock = [pair.drop for pair in evidence[0].pairs]
    assert stock == sorted(stock, reverse=True)


def test_boilerplate_moves_with_no_slice(report: ReadReport) -> None:
    drop = torch.tensor([0.1, 0.29, -3.0])
    assert rank_pairs(drop, None) == [1, 0, 2]
    assert rank_pairs(drop, torch.tensor([0.2, 0.1, 0.7])) == [2, 0, 1]
    assert attention_of(report.sentences[0], None) is None


def test_a_box_holds_the_peak_and_what_hangs_together_with_it() -> None:
    cells = np.full((8, 12), 1e-6, np.float32)
    cells[2:4, 5:8] = 0.1
    cells[2, 5] = 1.0
    cells[7, 0] = 0.9  # apart from the peak
    cells[4, 8] = 0.04  # below a twentieth
    assert box_around_peak(cells, 0.05, 7) == (35, 14, 56, 28)


def evidence(findings: tuple[str, ...], *, particular: bool) -> SentenceEvidence:
    places = {"slice_indices": (30, 20), "position_mm": (5.0, -5.0), "box_px": (7, 14, 21, 28)}
    first = PairEvidence.model_validate({"pair": 1, "drop": 2.5, "attention": 0.8, **places})
    other = first.model_copy(update={"pair": 2, "slice_indices": (10, 0), "drop": 0.1})
    return SentenceEvidence(
        section="findings",
        text="A nodule.",
        findings=findings,
        log_prob=-1.0,
        num_tokens=3,
        particular=particular,
        pairs=(first, other),
    )


def test_the_best_pairs_slices_are_named_as_the_report_counts_them() -> None:
    (row,) = sentence_rows([evidence((), particular=True)], [0.75], SLICES)
    assert [(s.number, s.slice_index, s.position_mm) for s in row.slices] == [
        (3, 30, 5.0),
        (4, 20, -5.0),
    ]
    assert {s.box_px for s in row.slices} == {(7, 14, 21, 28)}
    assert (row.text, row.boilerplate, row.drop, row.confidence) == ("A nodule.", False, 2.5, 0.75)
    assert repr(row) == "SentenceRow('A nodule.', slices 3 and 4, 0.75)"


def test_boilerplate_names_no_slice_and_a_finding_is_never_boilerplate() -> None:
    stock, stated = sentence_rows(
        [evidence((), particular=False), evidence(("Lung nodule",), particular=False)],
        [None, None],
        SLICES,
    )
    assert (stock.boilerplate, stock.slices) == (True, ())
    assert repr(stock) == "SentenceRow('A nodule.', boilerplate)"
    assert not stated.boilerplate
    assert len(stated.slices) == 2
