"""The stage: prepared studies in, the same studies with crops of their full frames behind out."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, one_writer, read_json, sha256_of_json, write_json
from ctscribe.rows import StudyRow, read_rows, write_rows
from ctscribe.run import provenance, weights_sha256
from ctscribe.second_look.cut import ShownFrames
from ctscribe.second_look.lead import load_leader, look_again
from ctscribe.slices.cache import read_fine, read_frames, record_path, write_frames
from ctscribe.slices.show import FullFrames
from ctscribe.types import Affine


def second_look(
    prepared_dir: Path,
    out: Path,
    weights_dir: Path,
    recipe: Recipe,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> list[StudyRow]:
    """Reads every study's slices again where the queries of some weights see small findings.

    ``out`` holds what `prepare` would have written: frames of whole slices first, then, ordered
    by pair, the same two slices at full resolution, cropped to the frames' size. Studies that an
    earlier run has done for the same request are not done again.

    Args:
        prepared_dir: What `prepare` wrote with ``slices.second_look`` set.
        out: A new folder, or that of an earlier run with the same request.
        weights_dir: A warm-up's checkpoint, or the best weights of a run with finding queries.
        recipe: Its slices and model sections matter.
        progress: Told (studies done, all studies).

    Raises:
        CtscribeError: ``E_RUN_EXISTS``, ``E_NO_QUERIES``, ``E_WEIGHTS``, ``E_CACHE``, and
            ``E_MISSING`` when there are no full frames or nothing to look for.
    """
    count = recipe.slices.second_look
    if not count:
        raise CtscribeError(
            "E_MISSING",
            "slices.second_look must say how many pairs of slices to read again, but is 0; "
            "set it to what the studies were prepared with",
        )
    prepared = read_json(prepared_dir / "prepare.json")
    asked = {
        "prepared": prepared["asked"],
        "weights_sha256": weights_sha256(weights_dir),
        "second_look": count,
    }
    with one_writer(out):
        _check(out, asked)
        studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
        manifest = {**prepared, **provenance(), "second_look": asked}
        rows = _look_again(prepared_dir, out, weights_dir, studies, recipe, manifest, progress)
        write_rows(out / "studies.jsonl", rows)
        shutil.copyfile(prepared_dir / "skipped.jsonl", out / "skipped.jsonl")
    return rows


def _check(out: Path, asked: dict[str, Any]) -> None:
    """Refuses a folder that holds anything but a beginning of this second look."""
    path = out / "prepare.json"
    if path.exists():
        same = read_json(path).get("second_look") == asked
    else:
        same = not (out / "slices").exists() and not (out / "studies.jsonl").exists()
    if not same:
        raise CtscribeError(
            "E_RUN_EXISTS",
            f"{out} must be new or hold the same second look, but it holds something else; "
            "choose another folder or remove it",
        )


def _look_again(
    prepared_dir: Path,
    out: Path,
    weights_dir: Path,
    studies: list[StudyRow],
    recipe: Recipe,
    manifest: dict[str, Any],
    progress: ProgressCallback,
) -> list[StudyRow]:
    asked = manifest["second_look"]
    requests = {study.volume_name: _request(prepared_dir, study, asked) for study in studies}
    done = {
        study.volume_name: row
        for study in studies
        if (row := _done(out, study, requests[study.volume_name])) is not None
    }
    progress(len(done), len(studies))
    missing = [study for study in studies if study.volume_name not in done]
    if missing:
        leader = load_leader(weights_dir, recipe.model.dtype)
        write_json(out / "prepare.json", manifest)
        for study in missing:
            name = study.volume_name
            shown = look_again(leader, *_first_look(prepared_dir, study), asked["second_look"])
            done[name] = _write(prepared_dir, out, study, shown, requests[name])
            progress(len(done), len(studies))
    return [done[study.volume_name] for study in studies]


def _request(prepared_dir: Path, study: StudyRow, asked: dict[str, Any]) -> str:
    record = read_json(record_path(prepared_dir, study.volume_name))
    if "fine_crc32" not in record:
        raise CtscribeError(
            "E_MISSING",
            f"{study.volume_name} must have its slices at full resolution, but they were not "
            "kept; prepare again with slices.second_look set",
        )
    return sha256_of_json([asked, record["frames_crc32"], record["fine_crc32"]])


def _done(out: Path, study: StudyRow, request: str) -> StudyRow | None:
    """The row of a study that an earlier run has finished."""
    path = record_path(out, study.volume_name)
    if not path.exists():
        return None
    record = read_json(path)
    if record.get("second_look_request") != request:
        return None
    try:
        read_frames(out, study.volume_name)
    except CtscribeError:
        return None
    return _extended(study, record)


def _first_look(
    prepared_dir: Path, study: StudyRow
) -> tuple[ShownFrames, tuple[FullFrames, Affine]]:
    """What `prepare` wrote: whole slices, and the same at full resolution."""
    record = read_json(record_path(prepared_dir, study.volume_name))
    first = ShownFrames(
        read_frames(prepared_dir, study.volume_name),
        study.slice_indices,
        study.position_mm,
        np.array(study.frame_to_ras),
    )
    return first, (read_fine(prepared_dir, study.volume_name), np.array(record["fine_to_ras"]))


def _write(
    prepared_dir: Path, out: Path, study: StudyRow, shown: ShownFrames, request: str
) -> StudyRow:
    record = read_json(record_path(prepared_dir, study.volume_name))
    for key in ("fine_crc32", "fine_to_ras", "frames_crc32"):
        record.pop(key)
    record |= {
        "slice_indices": shown.slice_indices,
        "position_mm": shown.position_mm,
        "crop_to_ras": [matrix.tolist() for matrix in shown.crop_to_ras],
        "second_look_request": request,
    }
    write_frames(out, study.volume_name, shown.frames, record)
    return _extended(study, record)


def _extended(study: StudyRow, record: dict[str, Any]) -> StudyRow:
    geometry = {key: record[key] for key in ("slice_indices", "position_mm", "crop_to_ras")}
    return StudyRow.model_validate({**study.model_dump(), **geometry})
