import json
from pathlib import Path

from ctscribe.learn.train.callback import newest_complete, seal


def write(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(step))
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


def test_nothing_is_resumed_from_nothing(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    write(tmp_path, 3)
    assert newest_complete(tmp_path) is None


def test_only_sealed_checkpoints_count_and_only_the_last_is_kept(tmp_path: Path) -> None:
    write(tmp_path, 3)
    seal(tmp_path, 3, 1.5, (3, 1.5))
    write(tmp_path, 20)
    found = newest_complete(tmp_path)
    assert found is not None
    assert found[0].name == "checkpoint-3"
    note = seal(tmp_path, 20, 1.75, (3, 1.5))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]
    assert newest_complete(tmp_path) == (tmp_path / "checkpoint-20", note)
    assert (note.best_step, note.best_validation_ce, note.validation_ce) == (3, 1.5, 1.75)


def test_pickled_arguments_do_not_stay(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    seal(tmp_path, 3, 1.5, (3, 1.5))
    assert sorted(path.name for path in folder.iterdir()) == ["complete.json", "model.safetensors"]


def test_a_marker_that_does_not_fit_is_not_believed(tmp_path: Path) -> None:
    for step in (3, 7):
        write(tmp_path, step)
    note = seal(tmp_path, 7, 1.0, (7, 1.0))
    folder = tmp_path / "checkpoint-7"
    folder.rename(tmp_path / "checkpoint-9")
    assert newest_complete(tmp_path) is None
    (tmp_path / "checkpoint-9").rename(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert newest_complete(tmp_path) is None
    write_marker = folder / "complete.json"
    write_marker.write_text(json.dumps({**note.model_dump(), "bytes": {"model.safetensors": 0}}))
    assert newest_complete(tmp_path) is not None
    write_marker.write_text("{")
    assert newest_complete(tmp_path) is None
    write_marker.write_text("{}")
    assert newest_complete(tmp_path) is None
