from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.decoding import write_reports
from ctscribe.learn.model.finding_queries import (
    SliceAttention,
    attach_finding_queries,
    finding_queries_of,
    gate_visual_tokens,
    label_loss,
    locate_findings,
)
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.dataset import Visual
from tests.learn.model.batches import make_batch, random_frames

ANSWERS = ["The lungs are clear.", "There is a nodule."]
GRIDS = torch.tensor([[3, 4, 6], [1, 8, 4]])


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(3 * 6 + 8, 12, generator=torch.Generator().manual_seed(seed))


def queries(seed: int = 0) -> SliceAttention:
    torch.manual_seed(seed)
    attention = SliceAttention(12)
    torch.nn.init.normal_(attention.gate)
    return attention


def test_a_model_is_bit_equal_at_step_0(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    frames = [random_frames(4, 56, 84), random_frames(6, 56, 56, seed=1)]
    batch = make_batch(tokenizer, ANSWERS, frames)
    with_queries = deepcopy(qwen)
    attach_finding_queries(with_queries)
    plain = answer_losses(qwen, batch, "depth")
    seen = answer_losses(with_queries, batch, "depth")
    assert torch.equal(plain.values, seen.values)
    assert plain.finding_logits is None
    assert seen.finding_logits is not None
    assert seen.finding_logits.shape == (2, 18)
    # the same check must fail once the gate has learned something
    torch.nn.init.constant_(with_queries.slice_attention.gate, 1.0)
    moved = answer_losses(with_queries, batch, "depth")
    assert not torch.equal(plain.values, moved.values)


def test_written_reports_read_through_the_gate(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokens = encode_frames(qwen, [random_frames(4, 56, 56)])
    shown = [Visual((2, 4, 4), (0.0, -60.0), visual_tokens=tokens)]

    def scores(model: Qwen2_5_VLForConditionalGeneration) -> tuple[float, ...]:
        return write_reports(model, tokenizer, shown, "depth", 4)[0].token_log_probs

    with_queries = deepcopy(qwen)
    attach_finding_queries(with_queries)
    assert scores(with_queries) == scores(qwen)
    torch.nn.init.constant_(with_queries.slice_attention.gate, 1.0)
    assert scores(with_queries) != scores(qwen)


def test_the_gate_by_hand() -> None:
    attention, visual = queries(), tokens()
    gated, logits = attention(visual, GRIDS)
    assert logits is not None
    for rows, grid, found in zip(torch.split(visual, [18, 8]), GRIDS.tolist(), logits, strict=True):
        seen = locate_findings(attention.head, rows, grid)
        torch.testing.assert_close(seen.logits, found)
        excess = grid[0] * seen.slices - 1
        factor = 1 + torch.tanh((attention.gate * found.sigmoid()) @ excess)
        assert bool(((factor > 0) & (factor < 2)).all())
        expected = rows * factor.repeat_interleave(len(rows) // grid[0])[:, None]
        torch.testing.assert_close(gated[: len(rows)], expected)
        gated = gated[len(rows) :]
    # one pair of slices has all the attention, so its factor is 1
    assert torch.equal(attention(visual[18:], GRIDS[1:]).visual_tokens, visual[18:])


def test_attention_is_the_gradient_of_the_log_odds() -> None:
    head, visual = queries().head, tokens()[:18]
    seen = locate_findings(head, visual, (3, 4, 6))
    assert seen.maps.shape == (18, 3, 8, 12)
    torch.testing.assert_close(seen.slices.sum(1), torch.ones(18))
    cells, _ = head(visual, [18])
    cells = cells.detach().requires_grad_()
    (slope,) = torch.autograd.grad(cells[..., 4].flatten().logsumexp(0), cells)
    by_cell = slope[..., 4].reshape(3, 2, 3, 4, 4).transpose(2, 3).reshape(3, 8, 12)
    torch.testing.assert_close(seen.maps[4], by_cell)


def test_a_pair_of_slices_draws_attention_wherever_it_stands() -> None:
    head, visual = queries().head, tokens()[:18].reshape(3, 6, 12)
    order = [2, 0, 1]
    seen = locate_findings(head, visual.flatten(0, 1), (3, 4, 6))
    moved = locate_findings(head, visual[order].flatten(0, 1), (3, 4, 6))
    torch.testing.assert_close(moved.slices, seen.slices[:, order])
    torch.testing.assert_close(moved.logits, seen.logits)


def test_unknown_labels_teach_nothing() -> None:
    logits = torch.randn(2, 18, requires_grad=True)
    labels = torch.full((2, 18), float("nan"))
    nothing = label_loss(logits, labels)
    (slope,) = torch.autograd.grad(nothing, logits)
    assert nothing.detach() == 0
    assert bool((slope == 0).all())
    labels[0, 3], labels[1, 5] = 1, 0
    by_hand = -(logits[0, 3].sigmoid().log() + (-logits[1, 5]).sigmoid().log()) / 2
    torch.testing.assert_close(label_loss(logits, labels), by_hand)


def test_a_model_without_queries_reads_its_tokens(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    visual = tokens()
    assert gate_visual_tokens(qwen, visual, GRIDS).visual_tokens is visual


def test_queries_survive_saving(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = deepcopy(qwen)
    torch.nn.init.normal_(attach_finding_queries(model).gate)
    save_model(tmp_path / "model", model, tokenizer)
    loaded = finding_queries_of(load_model(tmp_path / "model")[0])
    assert loaded is not None
    for name, tensor in model.slice_attention.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    save_model(tmp_path / "plain", qwen, tokenizer)
    assert finding_queries_of(load_model(tmp_path / "plain")[0]) is None


@pytest.mark.parametrize("head", [None, "warm"])
def test_queries_start_from_the_warm_up(
    qwen: Qwen2_5_VLForConditionalGeneration, head: str | None
) -> None:
    model = deepcopy(qwen)
    warm = SliceAttention(model.config.text_config.hidden_size).head.state_dict()
    attention = attach_finding_queries(model, warm if head else None)
    same = torch.equal(attention.head.cells.weight, warm["cells.weight"])
    assert same == bool(head)
    assert bool((attention.gate == 0).all())
