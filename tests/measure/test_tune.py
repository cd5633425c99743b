"""Tuning: what it chooses among, by which scores, and that the run writes so from then on."""

import shutil
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base import workers
from ctscribe.base.files import read_json
from ctscribe.base.recipe import GenerateConfig
from ctscribe.data.prepared import Prepared
from ctscribe.measure import tune as module
from ctscribe.measure.tune import Try, tune
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.studies import random_frames, write_prepared
from tests.write.test_prediction_file import kill_half_way, torchrun
from tests.write.test_told import STUDIES, prepared, recipe, run

__all__ = ["prepared", "run"]


def test_the_best_try_is_chosen_and_used(
    run: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = tune(run, prepared, progress=lambda *done: told.append(done))
    assert found == read_json(run.run_dir / "tuned.json")
    assert (run.run_dir / "tuned.png").stat().st_size > 1000
    tries = found["tries"]
    assert len(tries) == told[-1][0] <= told[-1][1]
    keeps = [t for t in tries if all(t[name] >= floor for name, floor in found["floors"].items())]
    chosen = {k: found["generate"][k] for k in ("contrast", "contrast_weight", "plausibility")}
    chosen["cue_threshold"] = found["cue_threshold"]
    best = next(t for t in tries if chosen.items() <= t.items())
    assert best in keeps
    plain = [t for t in tries if t["contrast"] == "none"]
    near = [t for t in plain if t["f1"] >= max(each["f1"] for each in plain) - 0.01]
    even = min(near, key=lambda t: abs(t["coverage"] - t["precision"]))
    assert best["cue_threshold"] == even["cue_threshold"]
    assert best["f1"] >= even["f1"]
    after = ReportWriter(run.run_dir)
    assert after.generate.model_dump(mode="json") == found["generate"]
    assert after.calibration is not None
    assert after.calibration.cue_threshold == found["cue_threshold"]
    assert all(row.cue is not None for row in generate(after, prepared, "test", tmp_path / "p"))


def test_tuning_of_other_weights_is_not_used(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", (0.5,))
    tune(run, prepared)
    other = ReportWriter(run.run_dir)
    other.weights_sha256 = "another"
    assert other.generate == other.recipe.generate


def kept(run: ReportWriter) -> dict[str, bytes]:
    files = [path for path in run.run_dir.rglob("*") if path.is_file()]
    return {str(path.relative_to(run.run_dir)): path.read_bytes() for path in files}


def copied(run: ReportWriter, folder: Path) -> ReportWriter:
    return ReportWriter(shutil.copytree(run.run_dir, folder))


def test_several_processes_leave_the_files_of_one(
    run: ReportWriter, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", (0.5,))
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.01)
    first = copied(run, tmp_path / "several")
    second = ReportWriter(first.run_dir)
    found = tune(run, prepared)
    process = Thread(target=tune, args=(second, prepared), kwargs={"share": (1, 2)})
    process.start()
    assert tune(first, prepared, share=(0, 2)) == found
    process.join()
    assert kept(first) == kept(run)


def test_a_process_whose_fellows_are_gone_says_so(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(workers, "SILENCE_S", 0.05)
    for share, what in (((1, 2), "calibration.json"), ((0, 2), "none-.*jsonl")):
        with refusal("E_SHARE", f"{what} must be made by several processes"):
            tune(run, prepared, share=share)
    assert not (run.run_dir / "tuned.json").exists()


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
def test_one_of_two_processes_killed_half_way_changes_nothing(
    run: ReportWriter, tmp_path: Path
) -> None:
    more = [
        row.model_copy(update={"volume_name": f"{row.scan_id}{n}_1.nii.gz", "scan_id": f"{n}"})
        for n, row in enumerate([row for row in STUDIES if row.split == "validation"] * 5)
    ]
    studies = [*(row for row in STUDIES if row.split == "train"), *more]
    frames = random_frames(len(studies), (4, 56, 56, 3))
    prepared = write_prepared(tmp_path / "prepared", studies, recipe(), frames=frames)
    several = copied(run, tmp_path / "several")
    tune(run, prepared)
    whole = next(iter((run.run_dir / "tune").glob("mean*.jsonl"))).name
    part = several.run_dir / "tune" / whole.replace(".jsonl", ".shards") / "2-of-2.jsonl"
    kill_half_way(torchrun("tune", several, prepared), part)
    assert not (several.run_dir / "tuned.json").exists()
    again = torchrun("tune", several, prepared)
    told = again.communicate(timeout=300)[1]
    assert again.returncode == 0, told[-3000:]
    assert told.count("kept in") == 1
    assert kept(several) == kept(run)


def test_floors_bind_and_plain_writing_is_always_left(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", (0.5,))
    found = tune(run, prepared, least_bleu_4=1.1)
    assert found["generate"]["contrast"] == "none"
    assert found["floors"]["bleu_4"] == 1.1


def test_a_floor_that_is_given_binds_the_thresholds(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", ())
    precisions = iter([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])

    def score(*_: object) -> dict[str, list[float]]:
        precision = next(precisions)
        others = {name: [0.5] for name in module._REPORTED}
        return {**others, "precision": [precision], "f1": [1 - precision]}

    monkeypatch.setattr(module, "score_sums", score)
    found = tune(run, prepared, least_precision=0.65)
    chosen = next(t for t in found["tries"] if t["cue_threshold"] == found["cue_threshold"])
    assert chosen["precision"] == 0.7  # the best F1 of those that keep the floor


def test_of_thresholds_with_nearly_the_best_f1_coverage_and_precision_meet(
    run: ReportWriter, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", ())
    scored = iter(
        (
            *((0.9, 0.5, 0.66), (0.8, 0.6, 0.7), (0.72, 0.66, 0.695), (0.68, 0.7, 0.691)),
            *((0.65, 0.75, 0.692), (0.6, 0.6, 0.68), (0.4, 0.9, 0.5)),
        )
    )

    def score(*_: object) -> dict[str, list[float]]:
        names = ("coverage", "precision", "f1")
        found = dict(zip(names, next(scored), strict=True))
        return {name: [found.get(name, 0.5)] for name in module._REPORTED}

    monkeypatch.setattr(module, "score_sums", score)
    found = tune(run, prepared)
    chosen = next(t for t in found["tries"] if t["cue_threshold"] == found["cue_threshold"])
    assert (chosen["coverage"], chosen["precision"]) == (0.68, 0.7)


def test_a_run_that_is_told_nothing_has_no_threshold(
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WEIGHTS", (0.5,))
    folder = write_run(tmp_path / "plain", recipe(cues=False), tiny_model(tokenizer), tokenizer)
    found = tune(ReportWriter(folder), prepared)
    assert found["cue_threshold"] is None
    assert {each["contrast"] for each in found["tries"]} >= {"none", "mean"}


def test_scores_below_a_floor_do_not_keep_it() -> None:
    each = Try(GenerateConfig(), None, {"bleu_4": 0.5, "precision": 0.6, "f1": 0.4})
    assert each.keeps({"bleu_4": 0.5, "precision": 0.6})
    assert not each.keeps({"bleu_4": 0.51})
