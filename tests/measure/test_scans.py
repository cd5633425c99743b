from collections.abc import Sequence

import numpy as np
import pytest
from jaxtyping import Bool

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.scans import (
    NOTHING,
    RULES,
    LabelSource,
    as_reports,
    compared_text,
    match_predictions,
)
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS
from tests.studies import prediction, reported_studies


def test_every_distinct_text_is_read_once_and_an_empty_one_never() -> None:
    asked: list[str] = []

    def read(texts: Sequence[str]) -> Bool[np.ndarray, "texts 18"]:
        asked.extend(texts)
        return np.ones((len(texts), len(FINDINGS)), dtype=bool)

    labels = LabelSource("all", read).labels(["a", "", "b", "a"])
    assert asked == ["a", "b"]
    assert labels == [(1,) * 18, NOTHING, (1,) * 18, (1,) * 18]


def test_another_number_of_findings_is_refused() -> None:
    source = LabelSource("short", lambda texts: np.zeros((len(texts), 17), dtype=bool))
    with pytest.raises((ValueError, TypeError)):
        source.labels(["a"])


def test_sections_stand_apart_for_the_rules() -> None:
    (labels,) = RULES.labels(["No pleural effusion\nLung nodule"])
    assert [name for name, label in zip(FINDINGS, labels, strict=True) if label] == ["Lung nodule"]


def test_the_source_reads_the_model_and_stands_in_the_signature() -> None:
    studies = reported_studies(12)
    everything = LabelSource(
        "everything", lambda texts: np.ones((len(texts), len(FINDINGS)), dtype=bool)
    )
    scores = evaluate(
        [prediction(study) for study in studies],
        studies,
        reported_studies(9, "train"),
        EvaluateConfig(resamples=100),
        everything,
    )
    assert scores["model"]["coverage"]["value"] == 1
    assert scores["model"]["crg"]["value"] == pytest.approx(1 / 3)
    assert "labels:everything" in scores["model"]["coverage"]["signature"]
    assert scores["baselines"]["all_normal"]["coverage"]["value"] == 1


def test_a_profile_compares_the_words_or_the_report_as_it_stood() -> None:
    sections, whole = ("A.", "B."), "FINDINGS:  A.\nImpression: B."
    assert compared_text(sections, whole, "ctrate-raw") == "A. B."
    assert compared_text(sections, whole, "r2gen") == "A. B."
    assert compared_text(sections, whole, "vlm3d") == whole
    assert compared_text(sections, None, "vlm3d") == "Findings: A. Impression: B."
    assert compared_text(("", ""), None, "vlm3d") == ""


def test_what_stood_in_the_files_reaches_the_comparison() -> None:
    study, other = (
        row.model_copy(update={"whole": f" {row.scan_id} "}) for row in reported_studies(2)
    )
    truth = as_reports([study, other])
    answers, missing = match_predictions(
        [prediction(study).model_copy(update={"whole": "As it stood ."})], truth
    )
    assert missing == [other.scan_id]
    assert answers.compared("vlm3d") == ["As it stood .", ""]
    assert truth[0].compared("vlm3d") == f" {study.scan_id} "
    assert "whole" not in study.model_dump()
