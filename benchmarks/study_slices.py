"""What finding queries change, and what their evidence and confidence are worth, on phantoms.

Usage: python benchmarks/study_slices.py [--out FOLDER] [--cells A,B] [--facts | --page]

Every cell (an arm and a seed) ends as one JSON file in docs/results/slice_aware/, so an
interrupted study goes on where it stopped; the page is made anew from those files, or from what is
there with --page. Cells come in the order of their importance, all seeds of the first arms first.
With --facts nothing is trained: finished cells get what `hold_on_scan` finds in their runs, where
those still lie in FOLDER.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from slices_written import counts, hold_on_scan

from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import PredictionRow, StudyRow, read_rows, write_rows
from ctscribe.base.runs import provenance

RAW = Path(__file__).parents[1] / "docs" / "results" / "slice_aware"
SEEDS = (0, 1, 2)
SHARES = (1.0, 0.0, 0.25, 0.05)
"""Of the studies whose boxes the warm-up may read."""
CHECKED_REPORTS = 100
"""Of the test split, whose evidence is compared with the truth."""
BASE = (
    "phantom.seed=6",  # drawn for this study alone
    "phantom.num_train_patients=600",
    "phantom.num_valid_patients=200",
    "pairs.strategy=origin",
    "pairs.validation_fraction=0.15",
)
"""Changes to the tiny recipe."""
ARMS: dict[str, tuple[str, ...]] = {
    "module": ("model.slice_attention=true", "objective.label_weight=0.1"),
    "plain": (),
    "scratch": ("model.freeze_tower=false", "model.freeze_merger=false"),
}
"""module and plain start from starts/tiny; scratch from random weights, trained for as long as
plain and the warm-up of its start take together."""
LESSON = (
    "warm_up.epochs=10",
    "pairs.validation_fraction=0.25",  # the warm-up's own test
)
"""A short warm-up on prepared studies, from random weights, for the share of boxes."""


def cells() -> list[tuple[str, int]]:
    """In the order in which they are run."""
    order = [(arm, seed) for seed in SEEDS for arm in ("module", "plain")]
    for seed in SEEDS:
        order += [(f"share{share:g}", seed) for share in SHARES]
        order.append(("scratch", seed))
    return order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study-slices"))
    parser.add_argument("--cells", default="", help="e.g. module-seed0,plain-seed0; all without")
    short = parser.add_mutually_exclusive_group()
    short.add_argument("--facts", action="store_true", help="only complete finished cells")
    short.add_argument("--page", action="store_true", help="only make the page anew")
    chosen = parser.parse_args()
    names = set(chosen.cells.split(",")) - {""}
    from slices_page import write_page

    wanted = [cell for cell in cells() if not names or f"{cell[0]}-seed{cell[1]}" in names]
    training = not (chosen.facts or chosen.page)
    if training:
        draw_data(chosen.out)
    for arm, seed in () if chosen.page else wanted:
        if training and not raw_path(arm, seed).exists():
            run_cell(chosen.out, arm, seed)
            print(f"{arm}-seed{seed}", flush=True)
        complete_cell(chosen.out, arm, seed)
        write_page(RAW, cells())
    print(f"Written to {write_page(RAW, cells())}")


def raw_path(arm: str, seed: int) -> Path:
    return RAW / f"{arm}-seed{seed}.json"


def recipe_of(*changes: str, seed: int) -> Recipe:
    seeds = (f"train.seed={seed}", f"warm_up.seed={1000 + seed}")
    return read_recipe("tiny", (*BASE, *seeds, *changes))


def draw_data(out: Path) -> None:
    from ctscribe.data.prepare import prepare
    from ctscribe.phantom.dataset import write_dataset

    recipe = recipe_of(seed=0)
    processes = os.cpu_count() or 1
    write_dataset(out / "data", recipe.phantom, processes=processes)
    prepare(
        *(out / "data", out / "prepared", recipe.volume, recipe.slices),
        keep="slices",
        processes=processes,
    )
    if not (RAW / "run.json").exists():
        write_json(RAW / "run.json", {"recipe": recipe.model_dump(mode="json"), **provenance()})


def run_cell(out: Path, arm: str, seed: int) -> None:
    """Runs one cell, each of whose steps goes on where it stopped."""
    import torch

    torch.set_num_threads(1)
    began = time.process_time()
    if arm.startswith("share"):
        found = teach_share(out, float(arm.removeprefix("share")), seed)
    else:
        found = train_arm(out, arm, seed)
    cpu_s = round(time.process_time() - began, 1)
    write_json(raw_path(arm, seed), {"arm": arm, "seed": seed, **found, "cpu_s": cpu_s})


def complete_cell(out: Path, arm: str, seed: int) -> None:
    """Adds what a finished cell of an arm that writes does not say yet, if its run is there."""
    path, prepared, folder = raw_path(arm, seed), out / "prepared", out / f"{arm}-seed{seed}"
    predictions = folder / "predictions_test.jsonl"
    if arm not in ARMS or not (path.exists() and predictions.exists()):
        return
    cell, recipe = read_json(path), recipe_of(*ARMS[arm], seed=seed)
    if "hold_on_scan" in cell:
        return
    _, test = split_studies(prepared, recipe)
    rows = read_rows(predictions, PredictionRow)
    if counts(rows, test) != cell["counts"]:
        raise SystemExit(f"{predictions} must hold the reports that {path.name} counts.")
    write_json(path, cell | {"hold_on_scan": hold_on_scan(folder, prepared, recipe, rows, test)})


def split_studies(prepared: Path, recipe: Recipe) -> tuple[list[StudyRow], list[StudyRow]]:
    """Studies to train on and to test on."""
    from ctscribe.data.splits import studies_of

    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    fraction = recipe.pairs.validation_fraction
    return studies_of(studies, "train", fraction), studies_of(studies, "test", fraction)


def teach_share(out: Path, share: float, seed: int) -> dict[str, Any]:
    """How well a tower sees that was told where findings are in a share of its studies."""
    from ctscribe.learn.warm_up import warm_up

    recipe = recipe_of(*LESSON, f"warm_up.where_share={share}", seed=seed)
    folder = out / f"share{share:g}-seed{seed}"
    warm_up(folder, recipe, out / "prepared", out / "data" / "truth.jsonl")
    report = read_json(folder / "warm_up.json")
    names = ("auroc", "mean_auroc", "num_train", "num_held_out", "seconds")
    return {"share": share} | {name: report[name] for name in names}


def train_arm(out: Path, arm: str, seed: int) -> dict[str, Any]:
    from slices_costs import costs

    from ctscribe.learn.pairs.build import build_pairs
    from ctscribe.learn.train.stage import train
    from ctscribe.measure.scores import evaluate
    from ctscribe.write.generate import generate

    recipe, start = recipe_of(*ARMS[arm], seed=seed), start_of(out, arm, seed)
    found: dict[str, Any] = {}
    if arm == "scratch":
        found["cost"] = costs(out, recipe, start_of(out, "plain", seed))
        recipe = recipe_of(*ARMS[arm], f"train.epochs={found['cost']['epochs']}", seed=seed)
    folder, prepared = out / f"{arm}-seed{seed}", out / "prepared"
    training, test = split_studies(prepared, recipe)
    write_rows(out / "pairs.jsonl", build_pairs(training, "origin", 10, 0))
    train(folder, prepared, out / "pairs.jsonl", recipe, start)
    predictions = folder / "predictions_test.jsonl"
    rows = generate(folder, prepared, recipe, "test", predictions)
    found["scores"] = evaluate(rows, test, training, recipe.evaluate)["model"]
    found["counts"] = counts(rows, test)
    if arm == "module":
        found |= ask(out, folder, recipe, test, training)
    return found


def start_of(out: Path, arm: str, seed: int) -> Path:
    """The shipped warm-up, or the same model with random weights."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from ctscribe.learn.model.checkpoint import is_complete, load_model, save_model
    from ctscribe.learn.model.presets import build_config
    from ctscribe.learn.warm_up import shipped_start

    start = shipped_start(read_recipe("tiny"))
    if start is None:
        raise SystemExit("The tiny recipe no longer fits starts/tiny; run `make start` first.")
    folder = out / f"random-seed{seed}"
    if arm != "scratch":
        return start
    if not is_complete(folder):
        _, tokenizer = load_model(start)
        torch.manual_seed(seed)
        config = build_config("tiny", tokenizer)
        save_model(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer)
    return folder


def ask(
    out: Path, folder: Path, recipe: Recipe, test: list[StudyRow], training: list[StudyRow]
) -> dict[str, Any]:
    """Labels, template, confidence, abstention and evidence of a run with finding queries."""
    from ctscribe.learn.model.features import store_features
    from ctscribe.learn.model.teach import auroc
    from ctscribe.measure.calibrate import calibrate
    from ctscribe.measure.faithfulness import check_faithfulness
    from ctscribe.measure.scores import evaluate
    from ctscribe.text.findings import FINDINGS
    from ctscribe.write.calibration import finding_logits
    from ctscribe.write.generate import load_for_inference, one_per_scan
    from ctscribe.write.template import generate_template

    prepared, predictions = out / "prepared", folder / "predictions_test.jsonl"
    calibrated = calibrate(folder, prepared, recipe, "test")
    template = generate_template(folder, prepared, recipe, "test", folder / "template.jsonl")
    qwen, _ = load_for_inference(folder, recipe)
    scans = one_per_scan(test)
    store = store_features(qwen, prepared, scans, windows=recipe.slices.windows)
    logits = finding_logits(qwen, store, scans).astype(np.float32)
    labels = np.array([study.labels for study in scans]) > 0
    columns = zip(logits.T, labels.T, strict=True)
    return {
        "auroc": dict(zip(FINDINGS, (auroc(*column) for column in columns), strict=True)),
        "template_scores": evaluate(template, test, training, recipe.evaluate)["model"],
        "template_counts": counts(template, test),
        "confidence": calibrated["test"],
        "abstention": calibrated["abstention"],
        "faithfulness": check_faithfulness(
            folder,
            prepared,
            predictions,
            out / "data" / "truth.jsonl",
            recipe,
            limit=CHECKED_REPORTS,
        ),
    }


if __name__ == "__main__":
    main()
