from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe, SlicesConfig, VolumeConfig
from ctscribe.base.types import Projection, SourceSplit
from ctscribe.data.prepared import Prepared, split_of
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.measure.calibrate import (
    ONE_IN,
    abstention_rates,
    calibrate,
    fit_remark_bounds,
)
from ctscribe.scan.frames import frames_of_lungs
from ctscribe.scan.volume import CTVolume
from ctscribe.show.trust_tables import calibration_tables
from ctscribe.text.labeler import label_report
from ctscribe.write.calibration import (
    is_true,
    read_calibration,
    sentence_confidences,
    sentence_log_odds,
)
from ctscribe.write.evidence import ReadSentence
from ctscribe.write.generate import generate_template
from ctscribe.write.writer import ReportWriter
from tests.models import plain_calibration, tiny_model, write_run
from tests.studies import study_row, write_prepared

MakeWriter = Callable[[bool], ReportWriter]
NODULE = ReadSentence("findings", "A nodule.", (9,), ())
DENIED = ReadSentence("findings", "No nodule or effusion.", (), (9, 12))
STOCK = ReadSentence("findings", "The trachea is open.", (), ())
SPLITS: tuple[SourceSplit, ...] = ("train", "valid")
RECIPE = Recipe.model_validate(
    {
        "splits": {"validation_fraction": 0.45},
        "model": {"positions": "depth", "dtype": "float32", "slice_attention": True},
        "generate": {"max_new_tokens": 6, "batch_size": 8},
        "evaluate": {"resamples": 100},
    }
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    studies = [
        study_row(
            f"{split}_{number}_a_1.nii.gz",
            labels=tuple(int((number + finding) % 2) for finding in range(18)),
            findings="A nodule is seen.",
            impression="Nodule.",
            split=split_of(f"{split}_{number}", split, RECIPE.splits),
        )
        for split in SPLITS
        for number in range(12)
    ]
    splits = [study.split for study in studies]
    assert min(splits.count("validation"), splits.count("test")) > 2
    draw = np.random.default_rng(0)
    steps = [draw.normal(0, 12, (4, 56, 56, 3)).cumsum(1).cumsum(2) for _ in studies]
    frames = [np.clip(128 + step, 0, 255).astype(np.uint8) for step in steps]
    return write_prepared(tmp_path_factory.mktemp("prepared"), studies, RECIPE, frames=frames)


@pytest.fixture
def make_writer(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> MakeWriter:
    """(with queries) → a run, whose queries were never trained."""

    def make(with_queries: bool) -> ReportWriter:
        qwen = tiny_model(tokenizer)
        if with_queries:
            attach_finding_queries(qwen)
        return ReportWriter(write_run(tmp_path / "run", RECIPE, qwen, tokenizer))

    return make


def test_a_run_is_calibrated_and_then_states_its_labels(
    make_writer: MakeWriter, prepared: Prepared
) -> None:
    writer = make_writer(True)
    run = writer.run_dir
    with pytest.raises(CtscribeError, match="as `ctscribe calibrate` writes it"):
        generate_template(writer, prepared, "test", run / "template.jsonl")
    told: list[tuple[int, int]] = []
    found = calibrate(writer, prepared, "test", progress=lambda *done: told.append(done))
    assert told[-1] == (100, 100)
    assert read_json(run / "calibration.json") == found
    assert (run / "reliability.png").stat().st_size > 1000
    # random queries know nothing; calibrated, they say how often a finding is there: about half
    assert found["test"]["findings"]["cases"] == 12 * 18
    assert found["test"]["findings"]["brier"] < 0.3
    assert found["abstention"]["good studies"]["refused"] == 0
    assert found["abstention"]["noise"]["value"] == 1
    measured, refusals = calibration_tables(found, "test")
    assert ("findings, calibrated", "216") in [row[:2] for row in measured.rows]
    assert ("noise", "12 of 12") in [row[:2] for row in refusals.rows]
    assert writer.calibration is not None
    rows = generate_template(writer, prepared, "test", run / "template.jsonl")
    assert len(rows) == 12
    assert all(sum(label_report(f"{r.findings} {r.impression}")) < 19 for r in rows)


def test_bounds_leave_true_reports_alone_and_need_enough_of_them() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random((4 * ONE_IN, 18)) < 0.3
    probability = 1 / (1 + np.exp(-draw.normal(4.0 * truth - 2.0)))
    bounds = fit_remark_bounds(probability, truth)
    assert bounds is not None
    low, high = bounds
    stated_too_little = (truth & (probability < low)).any(axis=1)
    left_out_too_much = (~truth & (probability > high)).any(axis=1)
    assert 0 < stated_too_little.sum() <= 4
    assert 0 < left_out_too_much.sum() <= 4
    assert fit_remark_bounds(probability[: ONE_IN - 1], truth[: ONE_IN - 1]) is None


def test_a_run_without_queries_is_refused(make_writer: MakeWriter, prepared: Prepared) -> None:
    with pytest.raises(CtscribeError, match=r"must have finding queries.*E_NO_QUERIES"):
        calibrate(make_writer(False), prepared, "test")


def test_a_calibration_of_other_weights_is_not_used(
    make_writer: MakeWriter, prepared: Prepared
) -> None:
    writer = make_writer(True)
    assert writer.calibration is None
    calibrate(writer, prepared, "validation")
    assert writer.calibration is not None
    assert read_calibration(writer.run_dir, "another") is None


def test_a_sentence_is_as_sure_as_its_least_sure_finding() -> None:
    probabilities = [0.5] * 18
    probabilities[9], probabilities[12] = 0.9, 0.2
    tokens, finding = sentence_log_odds(NODULE, -0.6, 6, probabilities) or (0, 0)
    assert tokens == pytest.approx(2.2522, abs=1e-3)  # e^−0.1 against 1 − e^−0.1
    assert finding == pytest.approx(2.1972, abs=1e-3)  # 0.9 against 0.1
    _, denied = sentence_log_odds(DENIED, -0.6, 6, probabilities) or (0, 0)
    assert denied == pytest.approx(-2.1972, abs=1e-3)  # 0.1 that there is no nodule
    assert sentence_log_odds(STOCK, -0.6, 6, probabilities) is None


def test_sentences_that_say_nothing_have_no_confidence() -> None:
    written, probabilities = [(-1.0, 5), (-1.0, 5)], [0.8] * 18
    found = sentence_confidences([NODULE, STOCK], written, probabilities, plain_calibration("a"))
    assert found == [pytest.approx(0.8), None]


def test_labels_are_read_off_the_texts_and_one_patient_gives_no_confidence(
    make_writer: MakeWriter, prepared: Prepared, tmp_path: Path
) -> None:
    held_out, tested = prepared.split("validation")[:1], prepared.split("test")
    studies = [study.model_copy(update={"labels": None}) for study in (*held_out, *tested)]
    shown = [np.array(prepared.frames(study)) for study in studies]
    writer = make_writer(True)
    found = calibrate(writer, write_prepared(tmp_path / "bare", studies, RECIPE, frames=shown))
    assert found["patients"]["validation"] == 1
    assert found["calibration"]["sentence_slopes"] is None
    assert found["test"]["sentences"] is None
    assert found["validation"]["findings"]["ece"]["low"] is None
    assert found["test"]["findings"]["cases"] == 18 * len(tested)


@pytest.mark.parametrize(
    ("sentence", "present", "expected"),
    [(NODULE, {9}, True), (NODULE, {12}, False), (DENIED, {12}, False), (DENIED, {0}, True)],
)
def test_true_sentences(sentence: ReadSentence, present: set[int], expected: bool) -> None:
    assert is_true(sentence, [int(i in present) for i in range(18)]) == expected


@pytest.mark.parametrize("projection", ["none", "slab"])
def test_a_good_study_is_kept_and_what_is_none_is_refused(
    tmp_path: Path, make_chest: Callable[..., CTVolume], projection: Projection
) -> None:
    recipe = Recipe(
        volume=VolumeConfig(spacing_mm=(6.0, 6.0, 8.0)),
        slices=SlicesConfig(
            num_slices=2, windows="three", frame_size_px=(56, 84), projection=projection
        ),
    )
    chest = frames_of_lungs(make_chest(), recipe.volume, recipe.slices)
    study = study_row("train_1_a_1.nii.gz", slice_indices=chest.slice_indices)
    prepared = write_prepared(tmp_path, [study], recipe, frames=[chest.frames])
    rates = abstention_rates(prepared, [study])
    assert {kind: rate["refused"] for kind, rate in rates.items()} == {
        "good studies": 0,
        "noise": 1,
        "blank": 1,
        "shuffled pixels": 1,
    }
