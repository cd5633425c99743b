"""A run that must stop says why, names the study and keeps its checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import write_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.pairs.collate import Batch
from ctscribe.learn.train.callback import newest_complete
from ctscribe.learn.train.epochs import EpochsInOrder
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.learn.train.stage import train
from tests.learn.train.runs import Train, make_recipe


def test_a_loss_that_is_not_a_number_names_the_study_and_keeps_the_checkpoint(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(prepared.folder, folder)
    recipe, pairs = make_recipe(), pairs_of["origin"]
    victim = prepared.split("train")[5]

    def spoil(step: int, total: int) -> None:
        if step == 3:
            for path in (folder / "features").glob(f"*/{victim.scan_id}_*.safetensors"):
                save_file({"features": load_file(path)["features"] * torch.nan}, path)

    with pytest.raises(CtscribeError, match=f"must be finite.*{victim.volume_name}") as error:
        train(tmp_path / "run", Prepared(folder), pairs, recipe, start, progress=spoil)
    assert error.value.code == "E_NAN"
    assert (tmp_path / "run" / "checkpoint-3" / "complete.json").exists()
    assert (tmp_path / "run" / "best").is_dir()


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_full_device_is_told_with_its_studies_and_keeps_the_checkpoint(
    tmp_path: Path,
    run: Train,
    pairs_of: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    full: Exception,
) -> None:
    pairs, recipe = pairs_of["origin"], make_recipe(train={"checkpoints_per_epoch": 3})
    calls: list[str] = []
    score = ReportScorer.forward

    def fill(self: ReportScorer, batch: Batch) -> AnswerLosses:
        calls.append("")
        if self.training and len(calls) > 10:
            raise full
        return score(self, batch)

    monkeypatch.setattr(ReportScorer, "forward", fill)
    with pytest.raises(CtscribeError, match=r"memory, but train_\d+_a_1\.nii\.gz did not") as error:
        run(tmp_path / "run", pairs, recipe)
    assert error.value.code == "E_MEMORY"
    assert newest_complete(tmp_path / "run") is not None


def test_other_errors_are_not_taken_for_a_full_device(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ReportScorer, batch: Batch) -> AnswerLosses:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(ReportScorer, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path / "run", pairs_of["origin"], make_recipe())


def test_an_over_long_report_is_named_and_the_checkpoint_kept(
    tmp_path: Path, prepared: Prepared, start: Path, pairs_of: dict[str, Path]
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(prepared.folder, folder)
    last = EpochsInOrder(range(12), 1, seed=0)[11]
    victim = prepared.split("train")[last]
    long = victim.model_copy(update={"findings": "The lungs are clear. " * 2000})
    write_rows(folder / "studies.jsonl", [long if s == victim else s for s in prepared.studies])
    recipe = make_recipe("origin", train={"checkpoints_per_epoch": 3})
    with pytest.raises(
        CtscribeError, match=f"4096 tokens, but {victim.volume_name} needs"
    ) as error:
        train(tmp_path / "run", Prepared(folder), pairs_of["origin"], recipe, start)
    assert error.value.code == "E_TOO_LONG"
    found = newest_complete(tmp_path / "run")
    assert found is not None
    assert found[1].step == 2
