"""A run of every family from prepared frames to written reports and what they rest on."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.rows import write_rows
from ctscribe.learn.model.backbone import Backbone
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.families import BACKBONES
from ctscribe.learn.pairs.build import build_pairs
from ctscribe.learn.train.stage import train
from ctscribe.write.token_planes import ShownSlices
from ctscribe.write.writer import ReportWriter
from tests.learn.train.conftest import STUDIES
from tests.learn.train.runs import make_recipe
from tests.models import tiny_of
from tests.refusals import refusal
from tests.studies import random_frames, write_prepared


@pytest.mark.parametrize("family", BACKBONES.values(), ids=lambda family: str(family.title))
@pytest.mark.parametrize("knobs", [{}, {"freeze_merger": False}, {"freeze_tower": False}], ids=str)
def test_a_run_from_frames_to_evidence(
    family: Backbone, knobs: dict[str, bool], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    side = family.token_px
    recipe = make_recipe(
        "gauss",
        slices={"token_side_px": side, "frame_size_px": (2 * side, 2 * side)},
        model={**knobs, "slice_attention": True},
        train={"epochs": 1},
        generate={"contrast": "others", "contrast_weight": 0.5, "max_new_tokens": 8},
    )
    frames = random_frames(len(STUDIES), (4, 2 * side, 2 * side, 3))
    prepared = write_prepared(tmp_path / "prepared", STUDIES, recipe, frames=frames)
    write_rows(tmp_path / "pairs.jsonl", build_pairs(prepared.split("train"), recipe.pairs))
    save_model(tmp_path / "start", tiny_of(family, tokenizer), tokenizer)
    run = tmp_path / "run"
    result = train(run, prepared, tmp_path / "pairs.jsonl", recipe, tmp_path / "start")
    assert np.isfinite(result.best_validation_loss)
    writer = ReportWriter(run)
    scans = prepared.split("validation")
    store = writer.features(prepared, scans)
    assert np.isfinite(writer.losses(scans, store.visual)).all()
    assert writer.finding_logits([store.visual(scan) for scan in scans]).shape == (len(scans), 18)
    writer.prepare_contrast(prepared)
    written = writer.answers([store.visual(scan) for scan in scans])
    assert len(written) == len(scans)
    report = writer.read("A nodule of 6 mm is seen.", "Lung nodule.")
    scan = scans[0]
    found = writer.evidence(report, store.visual(scan), ShownSlices.of_study(prepared, scan))
    assert len(found) == 2
    for pair in found[0].pairs:
        assert np.isfinite(pair.drop)


@pytest.mark.parametrize("family", BACKBONES.values(), ids=lambda family: str(family.title))
def test_frames_prepared_for_another_family_are_refused(
    family: Backbone, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    side = 60 - family.token_px
    recipe = make_recipe(slices={"token_side_px": side, "frame_size_px": (2 * side, 2 * side)})
    frames = random_frames(len(STUDIES), (4, 2 * side, 2 * side, 3))
    prepared = write_prepared(tmp_path / "prepared", STUDIES, recipe, frames=frames)
    write_rows(tmp_path / "pairs.jsonl", build_pairs(prepared.split("train"), recipe.pairs))
    save_model(tmp_path / "start", tiny_of(family, tokenizer), tokenizer)
    with refusal("E_FRAMES", f"sides a multiple of {family.token_px} px"):
        train(tmp_path / "run", prepared, tmp_path / "pairs.jsonl", recipe, tmp_path / "start")
