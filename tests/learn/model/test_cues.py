import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.cues import cue_of, finding_logits, label_cues
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.findings import FINDINGS
from tests.models import tiny_model
from tests.refusals import refusal
from tests.studies import study_row

NODULE = tuple(int(finding == "Lung nodule") for finding in FINDINGS)


def test_a_cue_names_what_is_stated_in_the_order_of_the_findings() -> None:
    stated = [finding in ("Lung opacity", "Cardiomegaly") for finding in FINDINGS]
    assert cue_of(stated) == ("Cardiomegaly", "Lung opacity")
    assert cue_of([0] * 18) == ()


def test_the_true_labels_of_the_shown_volume_are_told_and_nothing_of_noise() -> None:
    def show(study: StudyRow, noise_seed: int | None = None) -> Visual:
        return Visual((1, 2, 2), (0.0,))

    source = label_cues(show)
    assert source(study_row("train_1_a_1.nii.gz", labels=NODULE), None).cue == ("Lung nodule",)
    assert source(study_row("train_1_a_1.nii.gz", labels=NODULE), 3).cue is None
    unlabelled = study_row("train_1_a_1.nii.gz", labels=None, findings="There is emphysema.")
    assert source(unlabelled, None).cue == ("Emphysema",)


def test_log_odds_need_queries(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokens = torch.randn(4, qwen.config.text_config.hidden_size)
    shown = [Visual((1, 4, 4), (0.0,), visual_tokens=tokens)]
    with refusal("E_NO_QUERIES", "must have finding queries"):
        finding_logits(qwen, shown)
    asked = tiny_model(tokenizer)
    attach_finding_queries(asked)
    assert finding_logits(asked, shown * 2).shape == (2, 18)
