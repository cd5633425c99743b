"""Writing a report for every scan of a split, at temperature 0, resumable."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow, append_row, read_rows, write_rows
from ctscribe.data.splits import Split, studies_of
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.decoding import Answer, write_reports
from ctscribe.learn.model.features import store_features
from ctscribe.learn.model.qwen import encode_frames
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.prompt import encode_prompt
from ctscribe.text.sections import split_report


def generate(
    run_dir: Path,
    prepared_dir: Path,
    recipe: Recipe,
    split: Split,
    out_path: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> list[PredictionRow]:
    """Writes ``predictions.jsonl``: one row per scan, from its first prepared reconstruction.

    Scans already in the file are skipped, and a last line cut by an interruption is dropped, so
    the same call goes on where it stopped.

    Args:
        run_dir: Training run; its ``best`` weights write.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        split: Whose scans.
        out_path: The file.
        progress: Told (scans done, all scans).

    Returns:
        The rows in the order of ``studies.jsonl``.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when the split has no scan, ``E_WEIGHTS`` without
            complete weights.
    """
    scans = scans_of(prepared_dir, split, recipe.pairs.validation_fraction)
    missing = missing_scans(scans, out_path)
    progress(len(scans) - len(missing), len(scans))
    if missing:
        qwen, tokenizer = load_for_inference(run_dir, recipe)
        store = store_features(qwen, prepared_dir, missing, windows=recipe.slices.windows)
        write_scans(qwen, tokenizer, scans, store.visual, recipe, out_path, progress=progress)
    rows = {row.scan_id: row for row in read_rows(out_path, PredictionRow)}
    return [rows[study.scan_id] for study in scans]


def load_for_inference(
    run_dir: Path, recipe: Recipe
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    """A run's best weights, on the GPU where there is one, and their tokenizer.

    Raises:
        CtscribeError: ``E_WEIGHTS`` when they are not complete.
    """
    qwen, tokenizer = load_model(run_dir / "best", recipe.model.dtype)
    qwen.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return qwen, tokenizer


def write_scans(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scans: Sequence[StudyRow],
    visual: Callable[[StudyRow], Visual],
    recipe: Recipe,
    out_path: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> None:
    """Appends a report of every scan that the file lacks.

    Args:
        qwen: The model.
        tokenizer: Its tokenizer.
        scans: One row per scan.
        visual: What the model is shown of a scan.
        recipe: The run's recipe.
        out_path: JSONL of `PredictionRow`.
        progress: Told (scans done, all scans) after each batch.
    """
    missing = missing_scans(scans, out_path)
    done = len(scans) - len(missing)
    knobs = recipe.generate
    for start in range(0, len(missing), knobs.batch_size):
        batch = missing[start : start + knobs.batch_size]
        visuals = [visual(study) for study in batch]
        written = write_for(qwen, tokenizer, visuals, recipe.model.positions, knobs.max_new_tokens)
        for study, answer in zip(batch, written, strict=True):
            append_row(out_path, _to_row(study, answer))
        progress(done + start + len(batch), len(scans))


def missing_scans(scans: Sequence[StudyRow], path: Path) -> list[StudyRow]:
    """Scans without a report in ``path``, from which a half-written last line is taken."""
    written = {row.scan_id for row in _written_before(path)}
    return [study for study in scans if study.scan_id not in written]


def write_for(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Sequence[Visual],
    positions: Literal["index", "depth"],
    max_new_tokens: int,
) -> list[Answer]:
    """Writes one report per visual input, all at once.

    Args:
        qwen: The model.
        tokenizer: Its tokenizer.
        visuals: Frames or stored features; not mixed.
        positions: Mode of `qwen.position_ids`.
        max_new_tokens: Longest report.
    """
    tokens = [v.visual_tokens for v in visuals if v.visual_tokens is not None]
    frames = [v.frames for v in visuals if v.frames is not None]
    with torch.inference_mode():
        visual_tokens = torch.cat(tokens) if tokens else encode_frames(qwen, frames)
    millimetres = [torch.tensor(visual.position_mm) for visual in visuals]
    return write_reports(
        qwen,
        tokenizer,
        [torch.tensor(encode_prompt(tokenizer, visual.grid_thw)) for visual in visuals],
        visual_tokens,
        torch.tensor([visual.grid_thw for visual in visuals]),
        torch.nn.utils.rnn.pad_sequence(millimetres, batch_first=True),
        positions,
        max_new_tokens,
    )


def scans_of(prepared_dir: Path, split: Split, validation_fraction: float) -> list[StudyRow]:
    """The scans of a split, each by its first prepared reconstruction.

    Args:
        prepared_dir: What `prepare` wrote.
        split: Whose scans.
        validation_fraction: See `split_of`.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when there is none, ``E_MISSING`` without studies.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    scans = one_per_scan(studies_of(studies, split, validation_fraction))
    if not scans:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the {split} split must have scans, but none of the {len(studies)} volumes in "
            f"{prepared_dir} belongs to it",
        )
    return scans


def one_per_scan(studies: Sequence[StudyRow]) -> list[StudyRow]:
    """The first reconstruction of each scan: reports are scored once per scan."""
    return list({study.scan_id: study for study in reversed(studies)}.values())[::-1]


def _written_before(path: Path) -> list[PredictionRow]:
    """Rows of an earlier call, after taking a half-written last line out of the file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    rows = read_rows(path, PredictionRow, partial=True)
    if not path.read_bytes().endswith(b"\n"):
        write_rows(path, rows)
    return rows


def _to_row(study: StudyRow, answer: Answer) -> PredictionRow:
    findings, impression = split_report(answer.text)
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=findings,
        impression=impression,
        num_tokens=len(answer.token_ids),
        finished=answer.finished,
    )
