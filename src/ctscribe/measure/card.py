"""One run → its image-dependence card: the same studies under every view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.files import ProgressCallback, sha256_of_json, write_json
from ctscribe.base.rows import PredictionRow, StudyRow, read_rows
from ctscribe.base.runs import open_run
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.train.validation import validation_pairs
from ctscribe.measure.card_scores import score_card
from ctscribe.measure.card_views import VIEWS, make_views
from ctscribe.measure.intervals import draw_patients, patient_index, sum_by_patient, with_interval
from ctscribe.measure.scans import as_reports, match_predictions
from ctscribe.write.generate import write_scans
from ctscribe.write.writer import ReportWriter


def measure_gap(writer: ReportWriter, prepared: Prepared, split: Split = "test") -> dict[str, Any]:
    """Mismatch gap: CE of each report on another patient's volume minus CE on its own.

    A model that recites the template has a gap of 0.

    Args:
        writer: The run.
        prepared: Holds the scans.
        split: Of at least two patients; the first volume of each scan is measured.

    Returns:
        ``value``, ``low`` and ``high`` of the gap in nats per answer token, the interval over
        draws of patients, and ``scans``: per scan its ``own_ce`` and ``other_ce``.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_PREPARED``.
    """
    scans, strangers = scans_with_strangers(prepared.split(split))
    store = writer.features(prepared, scans)
    views = make_views(writer.qwen, store, strangers)
    own, other = (writer.losses(scans, views[name]) for name in ("real", "other_patient"))
    knobs = writer.recipe.evaluate
    patients = patient_index([scan.patient_id for scan in scans])
    sums = sum_by_patient(np.stack([other - own, np.ones(len(scans))], axis=1), patients)
    drawn = draw_patients(len(sums), knobs.resamples, knobs.seed) @ sums
    return {
        **with_interval(np.mean(other - own, keepdims=True), drawn[:, 0] / drawn[:, 1]),
        "scans": [
            {"scan_id": scan.scan_id, "own_ce": own_ce, "other_ce": other_ce}
            for scan, own_ce, other_ce in zip(scans, own.tolist(), other.tolist(), strict=True)
        ],
    }


def scans_with_strangers(
    studies: Sequence[StudyRow],
) -> tuple[list[StudyRow], dict[str, StudyRow]]:
    """The first volume of each scan, and by its name the other patient's drawn for validation.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients.
    """
    by_name = {study.volume_name: study for study in studies}
    rows = validation_pairs(studies)
    strangers = {row.study: by_name[str(row.volume)] for row in rows[1::2]}
    return [by_name[name] for name in strangers], strangers


def make_card(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_dir: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Measures and writes ``card.json``.

    The reports stay beside them as ``reports_<view>.jsonl``; an interrupted card goes on there.

    Args:
        writer: The run.
        prepared: Holds the scans.
        split: Whose scans, of at least two patients.
        out_dir: The card's folder.
        progress: Told (volumes shown, all); each view is shown to score, and again to write.

    Returns:
        The card, as in ``card.json``; see `score_card`.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_WEIGHTS`` without
            complete weights, ``E_RUN_EXISTS`` when the folder holds another model's card.
    """
    scans, strangers = scans_with_strangers(prepared.split(split))
    prepared.require(writer.recipe)
    asked = _identify(writer, split, scans)
    open_run(out_dir, "card", {**asked, "recipe": writer.recipe.model_dump(mode="json")})
    views = make_views(writer.qwen, writer.features(prepared, scans, noise=True), strangers)
    cross_entropy, answers, truth = {}, {}, as_reports(scans)
    for number, (name, view) in enumerate(views.items()):
        tell = _part(number, len(scans), progress)
        path = out_dir / f"reports_{name}.jsonl"
        cross_entropy[name] = writer.losses(scans, view)
        tell(0, len(scans))
        write_scans(writer, scans, view, path, progress=tell)
        tell(len(scans), len(scans))
        answers[name], _ = match_predictions(read_rows(path, PredictionRow), truth)
    card = asked | score_card(cross_entropy, answers, truth, writer.recipe.evaluate)
    card["use"] = RESEARCH_USE
    write_json(out_dir / "card.json", card)
    return card


def _identify(writer: ReportWriter, split: Split, scans: Sequence[StudyRow]) -> dict[str, Any]:
    return {
        "weights_sha256": writer.weights_sha256,
        "split": split,
        "studies_sha256": sha256_of_json([scan.model_dump(mode="json") for scan in scans]),
    }


def _part(number: int, num_scans: int, progress: ProgressCallback) -> ProgressCallback:
    """Tells the reports written from one view as part of the whole, their true ones before."""
    before, total = (2 * number + 1) * num_scans, 2 * len(VIEWS) * num_scans
    return lambda done, _: progress(before + done, total)
