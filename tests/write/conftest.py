"""The tiny model with finding queries, its run, one report, one volume of three slice pairs."""

from copy import deepcopy

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import Recipe
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.write.evidence import ForcedReport, ReadReport
from ctscribe.write.writer import ReportWriter
from tests.models import write_run

FINDINGS_TEXT = "The trachea is open. A nodule of 6 mm is seen. No pleural effusion."
IMPRESSION = "Lung nodule."


@pytest.fixture(scope="session")
def qwen(qwen: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    model = deepcopy(qwen)
    torch.nn.init.normal_(attach_finding_queries(model).gate)
    return model


@pytest.fixture(scope="session")
def writer(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> ReportWriter:
    recipe = Recipe.model_validate({"model": {"positions": "depth", "dtype": "float32"}})
    return ReportWriter(write_run(tmp_path_factory.mktemp("run"), recipe, qwen, tokenizer))


@pytest.fixture(scope="session")
def report(writer: ReportWriter) -> ReadReport:
    return writer.read(FINDINGS_TEXT, IMPRESSION)


@pytest.fixture(scope="session")
def visual() -> Visual:
    tokens = torch.randn(3 * 4, 128, generator=torch.Generator().manual_seed(0))
    return Visual((3, 4, 4), (50.0, 0.0, -50.0), visual_tokens=tokens)


@pytest.fixture(scope="session")
def forced(writer: ReportWriter, report: ReadReport, visual: Visual) -> ForcedReport:
    return writer.teacher_force(report, visual)
