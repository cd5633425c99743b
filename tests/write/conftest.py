"""The tiny model with finding queries, one report, one volume of three slice pairs."""

from copy import deepcopy

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.finding_queries import attach
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.write.evidence import Shown, show
from ctscribe.write.sentences import ReadReport, read_report

FINDINGS_TEXT = "The trachea is open. A nodule of 6 mm is seen. No pleural effusion."
IMPRESSION = "Lung nodule."


@pytest.fixture(scope="session")
def qwen(qwen: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    model = deepcopy(qwen)
    torch.nn.init.normal_(attach(model).gate)
    return model


@pytest.fixture(scope="session")
def report(tokenizer: PreTrainedTokenizerBase) -> ReadReport:
    return read_report(FINDINGS_TEXT, IMPRESSION, tokenizer)


@pytest.fixture(scope="session")
def visual() -> Visual:
    tokens = torch.randn(3 * 4, 128, generator=torch.Generator().manual_seed(0))
    return Visual((3, 4, 4), (50.0, 0.0, -50.0), visual_tokens=tokens)


@pytest.fixture(scope="session")
def shown(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    report: ReadReport,
    visual: Visual,
) -> Shown:
    return show(qwen, tokenizer, report.answer, visual, "depth")
