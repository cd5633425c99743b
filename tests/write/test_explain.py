import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.scan.boxes import box_around_peak
from ctscribe.write.evidence import (
    ReadReport,
    ReportOnScan,
    attention_of,
    drops_of,
    explain,
    find_in_scan,
    leave_one_out,
    log_probs,
    rank_pairs,
)


def test_drops_add_up_over_a_sentences_tokens(report: ReadReport) -> None:
    tokens = report.tokens.shape[1]
    scores = torch.zeros(4, tokens + 1)
    scores[0] = -0.1
    scores[2] = -0.5
    total, drops = drops_of(scores, report)
    lengths = report.tokens.sum(1).float()
    torch.testing.assert_close(total, -0.1 * lengths)
    torch.testing.assert_close(drops[:, 1], 0.4 * lengths)
    torch.testing.assert_close(drops[:, 0], -0.1 * lengths)


def test_every_sentence_gets_its_slices(
    qwen: Qwen2_5_VLForConditionalGeneration, report: ReadReport, on_scan: ReportOnScan
) -> None:
    millimetres = (55.0, 45.0, 5.0, -5.0, -45.0, -55.0)
    evidence = explain(qwen, report, on_scan, (50, 40, 30, 20, 10, 0), millimetres)
    assert [each.text for each in evidence] == [each.text for each in report.sentences]
    total, drops = drops_of(log_probs(qwen, on_scan, leave_one_out(3)), report)
    assert find_in_scan(qwen, on_scan) is not None
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
