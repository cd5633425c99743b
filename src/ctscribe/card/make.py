"""One run → its image-dependence card: the same studies under every view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.card.measure import report_ce, scans_with_strangers
from ctscribe.card.score import score_card
from ctscribe.card.views import VIEWS, make_views
from ctscribe.card.write import write_card
from ctscribe.config import Recipe
from ctscribe.evaluate.scans import as_reports, match_predictions
from ctscribe.files import ProgressCallback, sha256_of_json
from ctscribe.generate import load_for_inference, write_scans
from ctscribe.model.features import store_features
from ctscribe.pairs.splits import Split, studies_of
from ctscribe.rows import PredictionRow, StudyRow, read_rows
from ctscribe.run import open_run, weights_sha256


def make_card(
    run_dir: Path,
    prepared_dir: Path,
    recipe: Recipe,
    split: Split,
    out_dir: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Measures and writes ``card.json``, ``card.md`` and ``card.png``.

    The reports stay beside them as ``reports_<view>.jsonl``; an interrupted card goes on there.

    Args:
        run_dir: Training run with its ``best`` weights.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        split: Whose scans, of at least two patients.
        out_dir: The card's folder.
        progress: Told (volumes shown, all); each view is shown to score, and again to write.

    Returns:
        The card, as in ``card.json``; see `score_card`.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_WEIGHTS`` without
            complete weights, ``E_RUN_EXISTS`` when the folder holds another model's card.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    studies = studies_of(studies, split, recipe.pairs.validation_fraction)
    scans, strangers = scans_with_strangers(studies)
    qwen, tokenizer = load_for_inference(run_dir, recipe)
    asked = _identify(run_dir, split, scans)
    open_run(out_dir, "card", {**asked, "recipe": recipe.model_dump(mode="json")})
    store = store_features(qwen, prepared_dir, scans, windows=recipe.slices.windows, noise=True)
    cross_entropy, answers, truth = {}, {}, as_reports(scans)
    for number, (name, view) in enumerate(make_views(qwen, store, strangers).items()):
        tell = _part(number, len(scans), progress)
        path = out_dir / f"reports_{name}.jsonl"
        cross_entropy[name] = report_ce(qwen, tokenizer, scans, view, recipe)
        tell(0, len(scans))
        write_scans(qwen, tokenizer, scans, view, recipe, path, progress=tell)
        tell(len(scans), len(scans))
        answers[name], _ = match_predictions(read_rows(path, PredictionRow), truth)
    card = asked | score_card(cross_entropy, answers, truth, recipe.evaluate)
    card["use"] = RESEARCH_USE
    write_card(out_dir, card)
    return card


def _identify(run_dir: Path, split: Split, scans: Sequence[StudyRow]) -> dict[str, Any]:
    return {
        "weights_sha256": weights_sha256(run_dir / "best"),
        "split": split,
        "studies_sha256": sha256_of_json([scan.model_dump(mode="json") for scan in scans]),
    }


def _part(number: int, num_scans: int, progress: ProgressCallback) -> ProgressCallback:
    """Tells the reports written from one view as part of the whole, their true ones before."""
    before, total = (2 * number + 1) * num_scans, 2 * len(VIEWS) * num_scans
    return lambda done, _: progress(before + done, total)
