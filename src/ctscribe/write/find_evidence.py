"""The stage: a run's written reports in, the slices each of their sentences rests on out."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import (
    PredictionRow,
    StudyRow,
    append_row,
    read_rows,
    write_rows,
)
from ctscribe.learn.model.features import store_features
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.write.evidence import EvidenceRow, SentenceEvidence, explain, show
from ctscribe.write.generate import load_for_inference
from ctscribe.write.sentences import read_report


def find_evidence(
    run_dir: Path,
    prepared_dir: Path,
    predictions_path: Path,
    recipe: Recipe,
    out_path: Path,
    *,
    limit: int | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> list[EvidenceRow]:
    """Writes ``evidence.jsonl``: for every written report, what its sentences rest on.

    Reports already in the file are skipped, so an interrupted call goes on.

    Args:
        run_dir: Training run whose ``best`` weights are asked.
        prepared_dir: What `prepare` wrote.
        predictions_path: What `generate` wrote.
        recipe: The run's recipe.
        out_path: The file.
        limit: Only the first so many reports.
        progress: Told (reports done, all reports).

    Raises:
        CtscribeError: ``E_MISSING`` without predictions, ``E_PREDICTION`` for one of a study
            that is not prepared, ``E_WEIGHTS``.
    """
    predictions, studies = match_predictions(prepared_dir, predictions_path, limit)
    done = read_rows(out_path, EvidenceRow, partial=True) if out_path.exists() else []
    write_rows(out_path, done)
    known = {row.scan_id for row in done}
    missing = [row for row in predictions if row.scan_id not in known]
    progress(len(predictions) - len(missing), len(predictions))
    if missing:
        qwen, tokenizer = load_for_inference(run_dir, recipe)
        store = store_features(
            qwen,
            prepared_dir,
            [studies[row.volume_name] for row in missing],
            windows=recipe.slices.windows,
        )
        for number, row in enumerate(missing, len(predictions) - len(missing) + 1):
            study = studies[row.volume_name]
            found = _evidence(qwen, tokenizer, row, study, store.visual(study), recipe)
            append_row(out_path, found)
            progress(number, len(predictions))
    by_scan = {row.scan_id: row for row in read_rows(out_path, EvidenceRow)}
    return [by_scan[row.scan_id] for row in predictions]


def _evidence(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    row: PredictionRow,
    study: StudyRow,
    visual: Visual,
    recipe: Recipe,
) -> EvidenceRow:
    report = read_report(row.findings, row.impression, tokenizer)
    sentences: tuple[SentenceEvidence, ...] = ()
    if report.sentences:
        shown = show(qwen, tokenizer, report.answer, visual, recipe.model.positions)
        sentences = explain(qwen, report, shown, study.slice_indices, study.position_mm)
    return EvidenceRow(
        scan_id=row.scan_id,
        patient_id=row.patient_id,
        volume_name=row.volume_name,
        sentences=sentences,
    )


def match_predictions(
    prepared_dir: Path, predictions_path: Path, limit: int | None
) -> tuple[Sequence[PredictionRow], dict[str, StudyRow]]:
    """A run's predictions and, by volume name, the prepared studies they were written for."""
    predictions = read_rows(predictions_path, PredictionRow)[:limit]
    studies = {s.volume_name: s for s in read_rows(prepared_dir / "studies.jsonl", StudyRow)}
    for row in predictions:
        if row.volume_name not in studies:
            raise CtscribeError(
                "E_PREDICTION",
                f"each predicted scan must be prepared, but {row.volume_name} is not in "
                f"{prepared_dir}",
            )
    return predictions, studies
