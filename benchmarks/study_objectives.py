"""Which negatives help? Every objective on phantom data, several seeds, equal positives seen.

Usage: python benchmarks/study_objectives.py [--out FOLDER] [--processes N] [--arms A,B] [--page]

Every cell (an arm and a seed) ends as one small JSON file in docs/results/objectives/, so an
interrupted study goes on where it stopped; the page is made anew from those files at the end, or
from what is there with --page. All cells of a seed come before the next seed's.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from objectives_columns import as_text, scan_columns, scores, training_summary

from ctscribe.base.files import write_json
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import PredictionRow, StudyRow, read_rows
from ctscribe.base.runs import provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    from ctscribe.learn.pairs.dataset import PairDataset, VisualSource
    from ctscribe.measure.card_views import View

RAW = Path(__file__).parents[1] / "docs" / "results" / "objectives"
SEEDS = (0, 1, 2)
EPOCHS = 8
CURVE_SCANS = 240
"""Of validation, after every epoch of Origin; the last epoch of each cell has all of them."""
BASE = (
    "phantom.seed=4",  # drawn for this study alone
    "phantom.num_train_patients=1000",
    "phantom.num_valid_patients=400",
    "pairs.validation_fraction=0.4",  # choices between arms need many patients
    f"train.epochs={EPOCHS}",
)
"""Changes to the tiny recipe."""

_HETER = ("pairs.strategy=heter", "objective.beta=0.3")
_DISPUTED = ("objective.scope=disputed", "objective.beta=0.3")
_NARROW = "objective.margin=0.5"  # over all tokens, most of which no scan decides
ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "paper-heter": ("pairs.strategy=heter",),
    "paper-gauss": ("pairs.strategy=gauss",),
    "logistic-hard": (*_DISPUTED, "pairs.strategy=hard", "objective.name=logistic"),
    "logistic-disputed": (*_DISPUTED, "pairs.strategy=heter", "objective.name=logistic"),
    "hinge": (*_HETER, "objective.name=hinge", _NARROW),
    "hinge-disputed": (*_DISPUTED, "pairs.strategy=heter", "objective.name=hinge"),
    "logistic-anatomy": (*_DISPUTED, "pairs.strategy=anatomy", "objective.name=logistic"),
    "logistic": (*_HETER, "objective.name=logistic", _NARROW),
    "logistic-weighted": (*_HETER, "objective.name=logistic", "objective.scope=weighted"),
    "simnpo": (*_HETER, "objective.name=simnpo", _NARROW, "objective.beta=0.15"),
    "unlikelihood": (*_HETER, "objective.name=unlikelihood", "objective.beta=0.1"),
}
"""What each arm changes; the paper's two keep the tiny recipe's β = 0.1 and cap of 3 nats. The
terms' slopes differ: SimNPO's is twice the hinge's, so its β is half."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study-objectives"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--page", action="store_true", help="only make the page anew")
    chosen = parser.parse_args()
    if not chosen.page:
        run_study(chosen.out, chosen.processes, chosen.arms.split(","))
    from objectives_page import write_page

    print(f"Written to {write_page(RAW)}")


def run_study(out: Path, processes: int, arms: list[str]) -> None:
    from ctscribe.data.prepare import prepare
    from ctscribe.phantom.dataset import write_dataset

    recipe = recipe_of("origin", 0)
    write_dataset(out / "data", recipe.phantom, processes=processes)
    prepare(
        *(out / "data", out / "prepared", recipe.volume, recipe.slices),
        keep="slices",
        processes=processes,
    )
    store_features_once(out / "prepared", recipe)
    if not (RAW / "run.json").exists():
        write_json(RAW / "run.json", {"recipe": recipe.model_dump(mode="json"), **provenance()})
    cells = [(out, arm, seed) for seed in SEEDS for arm in arms]
    todo = [cell for cell in cells if not raw_path(*cell[1:]).exists()]
    print(f"{len(cells) - len(todo)} of {len(cells)} cells are done", flush=True)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for cell in as_completed([pool.submit(run_cell, task) for task in todo]):
            print(cell.result(), flush=True)


def recipe_of(arm: str, seed: int) -> Recipe:
    seeds = (f"pairs.seed={seed}", f"train.seed={seed}")
    return read_recipe("tiny", (*BASE, *ARMS[arm], *seeds))


def raw_path(arm: str, seed: int) -> Path:
    return RAW / f"{arm}-seed{seed}.json"


def store_features_once(prepared: Path, recipe: Recipe) -> None:
    from ctscribe.learn.model.checkpoint import load_model
    from ctscribe.learn.model.features import store_features

    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    qwen, _ = load_model(start_of(recipe), recipe.model.dtype)
    store_features(qwen, prepared, studies, windows=recipe.slices.windows, noise=True)


def start_of(recipe: Recipe) -> Path:
    from ctscribe.learn.warm_up import shipped_start

    start = shipped_start(recipe)
    if start is None:
        raise SystemExit("The tiny recipe no longer fits starts/tiny; run `make start` first.")
    return start


def run_cell(cell: tuple[Path, str, int]) -> str:
    """Trains one cell, keeps its last weights, reads validation and, once, the test split."""
    import torch

    torch.set_num_threads(1)
    out, arm, seed = cell
    began = time.monotonic(), time.process_time()
    written = train_and_write(out / "prepared", out / "cells" / f"{arm}-seed{seed}", arm, seed)
    seconds = round(time.monotonic() - began[0]), round(time.process_time() - began[1])
    times = {"wall_s": seconds[0], "cpu_s": seconds[1]}
    write_json(raw_path(arm, seed), {"arm": arm, "seed": seed, **written, **times})
    return f"{arm} seed {seed}: {times}, validation {written['validation']}"


@dataclass(frozen=True)
class Learner:
    """A model that starts to learn, and what it learns from."""

    qwen: "Qwen2_5_VLForConditionalGeneration"
    tokenizer: "PreTrainedTokenizerBase"
    visual: "VisualSource"
    datasets: "tuple[PairDataset, PairDataset]"
    """Of training and of validation."""


def train_and_write(prepared: Path, folder: Path, arm: str, seed: int) -> dict[str, Any]:
    from ctscribe.data.splits import studies_of
    from ctscribe.learn.train.setup import training_arguments
    from ctscribe.learn.train.stage import fit
    from ctscribe.write.generate import one_per_scan

    recipe = recipe_of(arm, seed)
    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    validation, test = (
        studies_of(studies, split, recipe.pairs.validation_fraction)
        for split in ("validation", "test")
    )
    learner = load_learner(prepared, folder, studies, validation, recipe)
    some = one_per_scan(validation)[:CURVE_SCANS]

    def watch(step: int, num_steps: int) -> None:
        epoch, rest = divmod(step, num_steps // EPOCHS)
        if arm == "origin" and not rest and epoch < EPOCHS:
            predict(learner, some, recipe, folder / f"epoch{epoch}.jsonl")

    arguments = training_arguments(folder / "train", recipe)
    fit(arguments, learner.qwen, learner.tokenizer, *learner.datasets, recipe, progress=watch)
    validation, test = one_per_scan(validation), one_per_scan(test)
    written = predict(learner, validation, recipe, folder / "validation.jsonl")
    tested = predict(learner, test, recipe, folder / "test.jsonl")
    curve = {
        epoch: scores(read_rows(folder / f"epoch{epoch}.jsonl", PredictionRow), some)
        for epoch in range(1, EPOCHS)
        if arm == "origin"
    }
    return {
        "knobs": ARMS[arm],
        "validation": scores(written, validation),
        "curve": {**curve, EPOCHS: scores(written, some)},
        "training": training_summary(folder / "train"),
        "test": scan_columns(tested, test) | gap_columns(learner, test, recipe),
    }


def load_learner(
    prepared: Path,
    folder: Path,
    studies: list[StudyRow],
    validation: list[StudyRow],
    recipe: Recipe,
) -> Learner:
    from ctscribe.learn.model.checkpoint import load_model
    from ctscribe.learn.pairs.build import build_training_pairs
    from ctscribe.learn.pairs.dataset import PairDataset
    from ctscribe.learn.train.scorer import validation_pairs
    from ctscribe.learn.train.setup import visual_source
    from ctscribe.pairs.anatomy import write_healed

    where = prepared.parent / "data" / "truth.jsonl"
    pairs = build_training_pairs(prepared, folder, recipe.pairs, where)
    judged = validation_pairs(validation)
    qwen, tokenizer = load_model(start_of(recipe), recipe.model.dtype)
    by_name = {study.volume_name: study for study in studies}
    healed = write_healed(prepared, by_name, pairs)
    visual = visual_source(qwen, prepared, [*studies, *healed], [*pairs, *judged], recipe)
    taught, asked = (PairDataset(by_name, r, tokenizer, visual, 4096) for r in (pairs, judged))
    return Learner(qwen, tokenizer, visual, (taught, asked))


def predict(
    learner: Learner, scans: list[StudyRow], recipe: Recipe, path: Path
) -> list[PredictionRow]:
    from ctscribe.write.generate import write_scans

    learner.qwen.eval()
    write_scans(learner.qwen, learner.tokenizer, scans, learner.visual, recipe, path)
    learner.qwen.train()
    return read_rows(path, PredictionRow)


def gap_columns(learner: Learner, scans: list[StudyRow], recipe: Recipe) -> dict[str, str]:
    """Cross entropy of each report on its own and on another patient's scan, in 1e-4 nats."""
    from ctscribe.measure.card import report_ce, scans_with_strangers

    first, strangers = scans_with_strangers(scans)
    learner.qwen.eval()
    views: "dict[str, View]" = {
        "own_ce": lambda study: learner.visual(study, None),
        "other_ce": lambda study: learner.visual(strangers[study.volume_name], None),
    }
    order = np.argsort([scan.scan_id for scan in first])
    return {
        name: as_text(report_ce(learner.qwen, learner.tokenizer, first, view, recipe)[order] * 1e4)
        for name, view in views.items()
    }


if __name__ == "__main__":
    main()
