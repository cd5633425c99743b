"""What finding queries change, and what their evidence and confidence are worth, on phantoms.

``make study NAME=slice_aware``: about three hours on two cores. Cells come in the order of their
importance, all seeds of the first arms first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.harness import (
    SEEDS,
    Cell,
    Cells,
    Draws,
    Study,
    draw_phantoms,
    interval,
    run_study,
    shown,
    spread,
    table,
    warm_start,
    weights,
)
from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import is_complete, load_model, save_model
from ctscribe.learn.model.presets import build_config
from ctscribe.learn.model.teach import auroc
from ctscribe.learn.pairs.build import build_training_pairs
from ctscribe.learn.train.stage import train
from ctscribe.learn.warm_up import warm_up
from ctscribe.measure.calibrate import calibrate
from ctscribe.measure.card import measure_gap
from ctscribe.measure.faithfulness import check_faithfulness
from ctscribe.measure.intervals import patient_index
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report
from ctscribe.text.sections import join_report
from ctscribe.write.generate import generate, generate_template
from ctscribe.write.writer import ReportWriter

SHARES = (1.0, 0.0, 0.25, 0.05)
"""Of the studies whose boxes the warm-up may read."""
CHECKED_REPORTS = 100
"""Of the test split, whose evidence is compared with the truth."""
SHUFFLES = 200
ARMS: dict[str, tuple[str, ...]] = {
    "module": ("model.slice_attention=true", "objective.label_weight=0.1"),
    "plain": (),
    # as much CPU time as plain and its start's warm-up took together (``cost`` in its raw files)
    "scratch": ("model.freeze_tower=false", "model.freeze_merger=false", "train.epochs=39"),
}
"""module and plain start from starts/tiny; scratch from random weights."""
LESSON = (
    "warm_up.epochs=10",
    "splits.validation_fraction=0.25",  # the warm-up's own test
)
"""A short warm-up on prepared studies, from random weights, for the share of boxes."""
TITLES = {
    "module": "warm start, finding queries, λ = 0.1",
    "plain": "warm start alone",
    "scratch": "random start, tower learning, equal total time",
}
RANKINGS = ("attention", "leave_one_out", "random")
STUDY = Study(
    "slice_aware",
    [(arm, seed) for seed in SEEDS for arm in ("module", "plain")]
    + [(arm, s) for s in SEEDS for arm in (*(f"share{n:g}" for n in SHARES), "scratch")],
    (
        "phantom.seed=6",  # drawn for this study alone
        "phantom.num_train_patients=600",
        "phantom.num_valid_patients=200",
        "pairs.strategy=origin",
        "splits.validation_fraction=0.15",
    ),
)


def recipe_of(seed: int, *changes: str) -> Recipe:
    return STUDY.recipe(f"train.seed={seed}", f"warm_up.seed={1000 + seed}", *changes)


def draw_data(out: Path) -> None:
    """Phantoms, prepared for both splits, their pairs, and random weights for scratch."""
    recipe, prepared = STUDY.recipe(), Prepared(out / "prepared")
    draw_phantoms(out / "data", {prepared.folder: recipe, out / "lesson": STUDY.recipe(*LESSON)})
    build_training_pairs(prepared, out, recipe.pairs)
    _, tokenizer = load_model(warm_start())
    for seed in SEEDS:
        if not is_complete(out / f"random-seed{seed}"):
            torch.manual_seed(seed)
            qwen = Qwen2_5_VLForConditionalGeneration(build_config("tiny", tokenizer))
            save_model(out / f"random-seed{seed}", qwen, tokenizer)


def run_cell(out: Path, arm: str, seed: int) -> Cell:
    return train_arm(out, arm, seed) if arm in ARMS else teach_share(out, arm, seed)


def teach_share(out: Path, arm: str, seed: int) -> Cell:
    """How well a tower sees that was told where findings are in a share of its studies."""
    share = float(arm.removeprefix("share"))
    recipe = recipe_of(seed, *LESSON, f"warm_up.where_share={share}")
    folder = out / f"{arm}-seed{seed}"
    warm_up(folder, recipe, Prepared(out / "lesson"), out / "data" / "truth.jsonl")
    report = read_json(folder / "warm_up.json")
    names = ("auroc", "mean_auroc", "num_train", "num_held_out", "seconds")
    return {"share": share} | {name: report[name] for name in names}


def train_arm(out: Path, arm: str, seed: int) -> Cell:
    recipe, prepared = recipe_of(seed, *ARMS[arm]), Prepared(out / "prepared")
    folder, test = out / f"{arm}-seed{seed}", prepared.split("test")
    start = out / f"random-seed{seed}" if arm == "scratch" else warm_start()
    train(folder, prepared, out / "pairs.jsonl", recipe, start)
    writer = ReportWriter(folder)
    rows = generate(writer, prepared, "test", folder / "predictions_test.jsonl")
    gap = measure_gap(writer, prepared)
    return {
        "scores": evaluate(rows, test, prepared.split("train"), recipe.evaluate)["model"],
        "counts": counts(rows, test),
        **(ask(writer, prepared, out / "data" / "truth.jsonl") if arm == "module" else {}),
        "hold_on_scan": {
            "texts": len({(row.findings, row.impression) for row in rows}),
            "shuffled_coverage": shuffled_coverage(rows, test),
            "mismatch_gap": {name: gap[name] for name in ("value", "low", "high")},
        },
    }


def ask(writer: ReportWriter, prepared: Prepared, truth: Path) -> Cell:
    """Labels, template, confidence, abstention and evidence of a run with finding queries."""
    training, test = prepared.split("train"), prepared.split("test")
    scans = prepared.scans("test")
    calibrated = calibrate(writer, prepared)
    template = generate_template(writer, prepared, "test", writer.run_dir / "template.jsonl")
    visual = writer.features(prepared, scans).visual
    logits = writer.finding_logits([visual(scan) for scan in scans]).astype(np.float32)
    columns = zip(logits.T, np.array([scan.labels for scan in scans]).T > 0, strict=True)
    predictions = writer.run_dir / "predictions_test.jsonl"
    return {
        "auroc": dict(zip(FINDINGS, (auroc(*column) for column in columns), strict=True)),
        "template_scores": evaluate(template, test, training, writer.recipe.evaluate)["model"],
        "template_counts": counts(template, test),
        "confidence": calibrated["test"],
        "abstention": calibrated["abstention"],
        "faithfulness": check_faithfulness(
            writer, prepared, predictions, truth, limit=CHECKED_REPORTS
        ),
    }


def counts(rows: Sequence[PredictionRow], test: Sequence[StudyRow]) -> list[list[Any]]:
    """Patient, true positives, false positives and false negatives of every scan."""
    stated, true = stated_and_true(rows, test)
    numbers = [(stated & true).sum(1), (stated & ~true).sum(1), (~stated & true).sum(1)]
    by_scan = np.stack(numbers, axis=1).tolist()
    return [[row.patient_id, *of_scan] for row, of_scan in zip(rows, by_scan, strict=True)]


def shuffled_coverage(
    rows: Sequence[PredictionRow], test: Sequence[StudyRow]
) -> dict[str, float | None]:
    """Coverage where every scan has another's text, its mean and 95 % range over the shuffles."""
    stated, true = stated_and_true(rows, test)
    draw = np.random.default_rng(0)
    orders = (draw.permutation(len(stated)) for _ in range(SHUFFLES))
    found = np.array([(stated[order] & true).sum() for order in orders]) / true.sum()
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return {"value": float(found.mean()), "low": low, "high": high}


def stated_and_true(
    rows: Sequence[PredictionRow], test: Sequence[StudyRow]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels read from the reports and those of their scans, bool [scans, findings] each."""
    truth = {study.scan_id: study.labels for study in test}
    stated = [label_report(join_report(row.findings, row.impression)) for row in rows]
    return np.array(stated, bool), np.array([truth[row.scan_id] for row in rows], bool)


def page(study: Study) -> dict[str, Any]:
    cells = study.finished()
    module = cells["module"]
    hits = [cell["faithfulness"]["all"]["hit@3"] for cell in module]
    hit, chance = (np.mean([h[name]["value"] for h in hits]) for name in ("attention", "chance"))
    parts = (cell["confidence"][key] for cell in module for key in ("findings", "sentences"))
    aurocs = [list(cell["auroc"].values()) for cell in module]
    return {
        "reports": _reports(cells),
        "against_plain": _compared(module, cells["plain"]),
        "against_scratch": _compared(module, cells["scratch"]),
        "hold": _hold_on_scan(cells),
        "labels": _labels(module),
        **{f"hits_{group}": _hits(module, group) for group in ("all", "focal")},
        **{f"curves_{group}": _curves(module, group) for group in ("all", "focal")},
        "confidence": _confidence(module),
        "abstention": _abstention(module),
        "shares": _shares(cells),
        "mean_auroc": np.mean([value for seed in aurocs for value in seed if value is not None]),
        "hit": hit,
        "chance": chance,
        "worst_ece": max(part["ece"]["value"] for part in parts),
    }


def _reports(cells: Cells) -> str:
    def row(title: str, counts: Sequence[list[list[Any]]], cpu_s: str) -> tuple[object, ...]:
        drawn = _drawn(counts)
        precision = shown(drawn[:, 0] / drawn[:, :2].sum(1))
        speaking = ", ".join(str(sum(row[1] + row[2] > 0 for row in seed)) for seed in counts)
        stating = f"{speaking} of {len(counts[0])}"
        return title, len(counts), shown(_coverage(drawn)), precision, stating, cpu_s

    rows = []
    for arm, title in TITLES.items():
        cpu_s = np.mean([cell["cpu_s"] for cell in cells[arm]])
        rows.append(row(title, [cell["counts"] for cell in cells[arm]], f"{cpu_s:.0f}"))
    counts = [cell["template_counts"] for cell in cells["module"]]
    rows.append(row("labels → template (`--generator template`)", counts, "–"))
    columns = ("system", "seeds", "Coverage", "Precision", "scans that state a finding")
    return table((*columns, "CPU s per cell"), rows)


def _drawn(counts: Sequence[list[list[Any]]]) -> np.ndarray:
    """Sums of (TP, FP, FN) over scans and seeds: [draws, 3]."""
    rows = [row for seed in counts for row in seed]
    patients = patient_index([row[0] for row in rows])
    return np.asarray(weights(patients) @ np.array([row[1:] for row in rows], float))


def _coverage(drawn: np.ndarray) -> Draws:
    return np.asarray(drawn[:, 0] / (drawn[:, 0] + drawn[:, 2]))


def _compared(module: Sequence[Cell], runs: Sequence[Cell]) -> str:
    """Queries against an arm; a ratio to one that never states what is there has no number."""
    one, other = (_coverage(_drawn([cell["counts"] for cell in arm])) for arm in (module, runs))
    difference = f"difference {shown(one - other, '+.3f')}"
    if not other.all():
        return f"{difference}, ratio undefined (the other states no finding that is there)"
    return f"{difference}, ratio {shown(one / other)}"


def _hold_on_scan(cells: Cells) -> str:
    rows = []
    for arm, title in TITLES.items():
        for cell in cells[arm]:
            found, _, missed = np.sum([row[1:] for row in cell["counts"]], axis=0)
            hold, own = cell["hold_on_scan"], f"{found / (found + missed):.3f}"
            texts = f"{hold['texts']} of {len(cell['counts'])}"
            limits = interval(hold["shuffled_coverage"]), interval(hold["mismatch_gap"], "+.4f")
            rows.append((title, cell["seed"], texts, own, *limits))
    columns = ("system", "seed", "different texts", "Coverage", "shuffled", "mismatch gap")
    return table(columns, rows)


def _labels(runs: Sequence[Cell]) -> str:
    found = {finding: [cell["auroc"][finding] for cell in runs] for finding in runs[0]["auroc"]}
    rows = [(finding, spread(values)) for finding, values in found.items() if None not in values]
    return table(("finding", "AUROC"), rows)


def _hits(runs: Sequence[Cell], group: str) -> str:
    rows = []
    for cell in runs:
        part = cell["faithfulness"][group]
        for name in (*RANKINGS, "chance"):
            hits = (interval(part[f"hit@{k}"][name], ".2f") for k in (1, 3))
            rows.append((cell["seed"], part["sentences"], name, *hits))
    return table(("seed", "sentences", "ranked by", "hit@1", "hit@3"), rows)


def _curves(runs: Sequence[Cell], group: str) -> str:
    rows = []
    for cell in runs:
        part: Mapping[str, Any] = cell["faithfulness"][group]
        boxes = [interval(part["overlap"][name], ".2f") for name in ("attention", "random")]
        for kind in ("deletion", "insertion"):
            means = (f"{np.mean(part[kind][name]):.2f}" for name in RANKINGS)
            rows.append((cell["seed"], *boxes, kind, *means))
    return table(("seed", "box overlap (IoU)", "of a random place", "curve", *RANKINGS), rows)


def _confidence(runs: Sequence[Cell]) -> str:
    rows = []
    for cell in runs:
        for key in ("findings_raw", "findings", "sentences"):
            part = cell["confidence"][key]
            curve = part["risk_coverage"]
            half = min(curve, key=lambda point: abs(point[0] - 0.5))[1]
            numbers = part["cases"], interval(part["ece"]), f"{part['brier']:.3f}"
            rows.append((cell["seed"], key, *numbers, f"{curve[-1][1]:.3f} → {half:.3f}"))
    return table(("seed", "of", "cases", "ECE", "Brier", "risk, all → surest half"), rows)


def _abstention(runs: Sequence[Cell]) -> str:
    rows = [
        (cell["seed"], kind, f"{rate['refused']} of {rate['of']}", interval(rate, ".2f"))
        for cell in runs
        for kind, rate in cell["abstention"].items()
    ]
    return table(("seed", "shown", "refused", "rate"), rows)


def _shares(cells: Cells) -> str:
    shares = {runs[0]["share"]: runs for runs in cells.values() if "share" in runs[0]}
    rows = [
        (
            f"{100 * share:g} %",
            len(runs),
            runs[0]["num_train"],
            spread([c["mean_auroc"] for c in runs]),
        )
        for share, runs in sorted(shares.items())
    ]
    columns = ("share with boxes", "seeds", "studies", "mean AUROC (lowest – highest seed)")
    return table(columns, rows)


if __name__ == "__main__":
    run_study(STUDY, draw_data, run_cell, page)
