"""A run that is told findings and holds its reports against other volumes, from end to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.files import write_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow
from ctscribe.base.tables import format_csv
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.measure.calibrate import calibrate, fit_findings
from ctscribe.measure.card import make_card
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import encode_prompt
from ctscribe.write.calibration import FILE, TUNED
from ctscribe.write.cue_table import CueTable, read_cue_table
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.learn.model.test_decoding import next_log_probs
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared


def recipe(*, cues: bool = True, contrast: str = "none") -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"positions": "depth", "dtype": "float32", "cues": cues},
            "generate": {
                "max_new_tokens": 8,
                "batch_size": 2,
                "contrast": contrast,
                "num_negatives": 2,
            },
            "evaluate": {"resamples": 100},
        }
    )


STUDIES: list[StudyRow] = [
    study_row(
        f"{kind}_{number}_a_1.nii.gz",
        labels=tuple(int((number + finding) % 3 == 0) for finding in range(18)),
        split=split,
    )
    for kind, split in (("train", "train"), ("train", "validation"), ("valid", "test"))
    for number in range(10 * (split == "validation"), 10 * (split == "validation") + 4)
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    frames = random_frames(len(STUDIES), (4, 56, 56, 3))
    return write_prepared(folder, STUDIES, recipe(), frames=frames)


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> ReportWriter:
    qwen = tiny_model(tokenizer)
    torch.manual_seed(0)
    attach_finding_queries(qwen)
    return ReportWriter(write_run(tmp_path / "run", recipe(), qwen, tokenizer))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Of all studies; the further to the right a finding, the likelier."""
    path = tmp_path / "probabilities.csv"
    likely = [f"{n / 18:.2f}" for n in range(18)]
    rows = [(study.volume_name, *likely) for study in STUDIES]
    path.write_text(format_csv([("VolumeName", *FINDINGS), *rows]))
    return path


def test_a_run_that_is_told_asks_its_calibrated_queries(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    with refusal("E_CUES", "no table and it has no calibration"):
        generate(run, prepared, "test", tmp_path / "a.jsonl")
    fitted = fit_findings(run, prepared)
    scans = prepared.scans("test")
    store = run.features(prepared, scans)
    seen = fitted.findings(run.finding_logits([store.visual(scan) for scan in scans]))
    rows = generate(run, prepared, "test", tmp_path / "b.jsonl")
    for row, probabilities in zip(rows, seen, strict=True):
        stated = probabilities >= fitted.cue_threshold
        assert row.cue == tuple(f for f, there in zip(FINDINGS, stated, strict=True) if there)
    nobody = fitted.model_copy(update={"cue_threshold": 1.0})
    silent = generate(run.with_settings(calibration=nobody), prepared, "test", tmp_path / "c.jsonl")
    assert [row.cue for row in silent] == [()] * 4


def test_another_cue_makes_another_report_and_another_loss(
    run: ReportWriter, prepared: Prepared
) -> None:
    scans = prepared.scans("test")
    store = run.features(prepared, scans)
    cues = (), FINDINGS[:1], FINDINGS
    written = [run.answers([replace(store.visual(scans[0]), cue=cue)])[0] for cue in cues]
    assert len({answer.token_log_probs for answer in written}) == 3
    losses = [
        run.losses(scans[:1], lambda study, cue=cue: replace(store.visual(study), cue=cue))[0]  # type: ignore[misc]
        for cue in cues
    ]
    assert len(set(losses)) == 3


def test_a_table_leads_in_the_queries_place(
    run: ReportWriter, prepared: Prepared, table: Path, tmp_path: Path
) -> None:
    cues = read_cue_table(table)
    rows = generate(run, prepared, "test", tmp_path / "a.jsonl", cues=cues)
    assert rows[0].cue == FINDINGS[9:]
    with refusal("E_RUN_EXISTS", "differs in the cues"):
        generate(run, prepared, "test", tmp_path / "a.jsonl", cues=replace(cues, threshold=0.7))
    with refusal("E_CUES", "a row for every scan, but none for valid_9"):
        cues.of("valid_9_a_1.nii.gz", "valid_9_a")


def test_the_table_moves_to_an_operating_point_on_labelled_scans(
    prepared: Prepared, table: Path
) -> None:
    cues = read_cue_table(table)
    scans = prepared.scans("validation")
    moved = cues.at(scans, "coverage=0.9")

    def coverage(threshold: float) -> float:
        there = [n for scan in scans for n, label in enumerate(scan.labels or ()) if label]
        return float(np.mean([round(n / 18, 2) >= threshold for n in there]))

    assert coverage(moved.threshold) >= 0.9 > coverage(moved.threshold + 0.1)
    with refusal("E_CUES", "rows for labelled validation scans"):
        CueTable(table, "", {}).at(prepared.scans("validation"), "f1")


@pytest.mark.parametrize("cell", ["1.2", "-0.1", "nan", "", "yes"])
def test_a_cell_that_is_no_probability_is_refused(table: Path, cell: str) -> None:
    table.write_text(table.read_text().replace("0.50", cell, 1))
    with refusal("E_LABEL_HEAD", "numbers from 0 to 1"):
        read_cue_table(table)


def test_a_run_that_did_not_learn_to_be_told_is_not_told(
    tokenizer: PreTrainedTokenizerBase, prepared: Prepared, table: Path, tmp_path: Path
) -> None:
    untold = recipe(cues=False)
    run = ReportWriter(write_run(tmp_path / "run", untold, tiny_model(tokenizer), tokenizer))
    with refusal("E_CUES", "must have learned to be told"):
        generate(run, prepared, "test", tmp_path / "a.jsonl", cues=read_cue_table(table))


@pytest.mark.parametrize("kind", ["noise", "others", "mean"])
def test_reports_are_held_against_volumes_that_stay_with_the_run(
    tokenizer: PreTrainedTokenizerBase, prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    folder = write_run(tmp_path / "run", recipe(cues=False), tiny_model(tokenizer), tokenizer)
    asked = (f"generate.contrast={kind}", "generate.contrast_weight=3", "generate.num_negatives=2")
    plain, run = ReportWriter(folder), ReportWriter(folder).with_overrides(asked)
    scans = prepared.scans("test")
    shown = [plain.features(prepared, scans).visual(scan) for scan in scans]
    with refusal("E_MISSING", "must hold the volumes that reports are held against"):
        run.answers(shown)
    rows = generate(run, prepared, "test", tmp_path / "held.jsonl")
    assert [row.findings for row in rows] != [
        row.findings for row in generate(plain, prepared, "test", tmp_path / "plain.jsonl")
    ]
    # from the run alone, as for a scan of no data set
    again = ReportWriter(folder).with_overrides(asked).answers(shown)
    assert [a.token_ids for a in again] == [a.token_ids for a in run.answers(shown)]
    assert again[0].token_log_probs == pytest.approx(
        _own_log_probs(plain, shown[0], again[0].token_ids), abs=1e-4
    )
    unheld = ReportWriter(folder).with_overrides((*asked, "generate.contrast_weight=0"))
    assert unheld.answers(shown) == plain.answers(shown)


def _own_log_probs(run: ReportWriter, shown: Visual, ids: tuple[int, ...]) -> list[float]:
    """Of these tokens, by the scan alone."""
    sofar = torch.tensor(encode_prompt(run.tokenizer, shown.grid_thw))
    found = []
    for token in ids:
        found.append(float(next_log_probs(run.qwen, sofar, shown, "depth")[token]))
        sofar = torch.cat([sofar, torch.tensor([token])])
    return found


def test_a_card_is_of_the_way_in_which_the_run_writes(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    fit_findings(run, prepared)
    held = run.with_overrides(("generate.contrast=mean",))
    make_card(held, prepared, "test", tmp_path / "card")
    with refusal("E_RUN_EXISTS", "generate.contrast"):
        make_card(run, prepared, "test", tmp_path / "card")


def test_a_run_that_has_written_can_be_calibrated_at_another_point(
    run: ReportWriter, prepared: Prepared
) -> None:
    first = calibrate(run, prepared, "validation")["calibration"]["cue_threshold"]
    path = run.run_dir / "predictions_validation.jsonl"
    before = path.read_bytes()
    second = calibrate(run, prepared, "validation", point="coverage=0.3")
    assert second["calibration"]["cue_threshold"] != first
    assert path.read_bytes() == before  # what was written stays


@pytest.mark.parametrize("file", [FILE, TUNED])
def test_what_another_version_fitted_is_refused_by_name(run: ReportWriter, file: str) -> None:
    old = {"weights_sha256": run.weights_sha256, "threshold": 0.5}
    write_json(run.run_dir / file, {**old, "calibration": old, "generate": {"greed": 1}})
    with refusal("E_FITTED", f"{file} must be of this version"):
        _ = run.calibration if file == FILE else run.generate


def test_only_how_it_writes_can_be_set_of_a_trained_run(run: ReportWriter) -> None:
    with refusal("E_RECIPE", "must name knobs of generate"):
        run.with_overrides(("model.cues=false",))
    with refusal("E_RECIPE", "generate.contrast"):
        run.with_overrides(("generate.contrast=everything",))
    assert run.with_overrides(()) is run
    assert np.isclose(run.with_overrides(("generate.plausibility=0.5",)).generate.plausibility, 0.5)
