"""The stage: a run's written reports in, the slices each of their sentences rests on out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.evidence.explain import explain
from ctscribe.evidence.faithful import Checked, Truth, check
from ctscribe.evidence.leave_out import show
from ctscribe.evidence.rows import EvidenceRow, SentenceEvidence
from ctscribe.evidence.sentences import read_report
from ctscribe.evidence.summary import summarise
from ctscribe.files import ProgressCallback
from ctscribe.generate import load_for_inference
from ctscribe.model.features import store_features
from ctscribe.pairs.dataset import Visual
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import (
    PredictionRow,
    StudyRow,
    TruthRow,
    append_row,
    read_rows,
    write_rows,
)
from ctscribe.slices.boxes import boxes_in_frames
from ctscribe.slices.cache import read_frames


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
    predictions, studies = _matched(prepared_dir, predictions_path, limit)
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


def check_faithfulness(
    run_dir: Path,
    prepared_dir: Path,
    predictions_path: Path,
    truth_path: Path,
    recipe: Recipe,
    *,
    limit: int | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Compares evidence with a phantom's truth; see `summary.summarise`.

    Args:
        run_dir: Training run whose ``best`` weights are asked.
        prepared_dir: What `prepare` wrote.
        predictions_path: What `generate` wrote.
        truth_path: The phantom's ``truth.jsonl``.
        recipe: The run's recipe.
        limit: Only the first so many reports.
        progress: Told (reports done, all reports).

    Raises:
        CtscribeError: As `find_evidence`, and ``E_MISSING`` without a truth.
    """
    predictions, studies = _matched(prepared_dir, predictions_path, limit)
    truths = {row.volume_name: row for row in read_rows(truth_path, TruthRow)}
    qwen, tokenizer = load_for_inference(run_dir, recipe)
    shown_studies = [studies[row.volume_name] for row in predictions]
    store = store_features(qwen, prepared_dir, shown_studies, windows=recipe.slices.windows)
    checked: list[tuple[str, Checked]] = []
    for number, (row, study) in enumerate(zip(predictions, shown_studies, strict=True)):
        progress(number, len(predictions))
        truth = _truth(prepared_dir, study, truths.get(study.volume_name))
        report = read_report(row.findings, row.impression, tokenizer)
        shown = show(qwen, tokenizer, report.answer, store.visual(study), recipe.model.positions)
        found = check(qwen, report, shown, truth, seed=number) if report.sentences else []
        checked += [(row.patient_id, each) for each in found]
    progress(len(predictions), len(predictions))
    return summarise(checked, recipe.evaluate.resamples, recipe.evaluate.seed)


def _truth(prepared_dir: Path, study: StudyRow, row: TruthRow | None) -> Truth:
    if row is None:
        raise CtscribeError(
            "E_MISSING",
            f"the truth must hold every volume of the data set, but lacks {study.volume_name}",
        )
    _, height, width, _ = read_frames(prepared_dir, study.volume_name).shape
    return Truth(
        boxes_in_frames(study, [lesion.box_mm for lesion in row.lesions]),
        tuple(FINDINGS.index(lesion.finding) for lesion in row.lesions),
        study.slice_indices,
        (height, width),
    )


def _matched(
    prepared_dir: Path, predictions_path: Path, limit: int | None
) -> tuple[Sequence[PredictionRow], dict[str, StudyRow]]:
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
