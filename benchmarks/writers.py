"""What studies that train a writer share.

The training of a cell, what is kept of each scan, and the scores, with and without each patient.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from benchmarks.harness import Draws, Study, draw_phantoms, warm_start, weights
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow, read_rows
from ctscribe.base.runs import open_run
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.features import store_features
from ctscribe.learn.pairs.build import build_pairs
from ctscribe.learn.pairs.dataset import PairDataset
from ctscribe.learn.train.arguments import training_arguments
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.learn.train.stage import fit, learner, visual_source
from ctscribe.learn.train.validation import validation_pairs
from ctscribe.measure.card import measure_gap
from ctscribe.measure.clinical import clinical_scores, clinical_statistics
from ctscribe.measure.intervals import patient_index
from ctscribe.measure.language import NUM_LANGUAGE_COLUMNS, language_scores
from ctscribe.measure.scans import as_reports, match_predictions, one_row_per_scan
from ctscribe.measure.statistics import scan_statistics
from ctscribe.text.findings import FINDINGS
from ctscribe.write.generate import generate, generate_template
from ctscribe.write.writer import ReportWriter

_BITS = 1 << np.arange(len(FINDINGS))
"""Findings of one scan as one number."""
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Of the cues, for the curve of Coverage against precision."""


def draw_scans(study: Study, out: Path) -> None:
    """Phantoms, prepared, and their features, stored once for all cells."""
    recipe, prepared = study.recipe(), Prepared(out / "prepared")
    draw_phantoms(out / "data", {prepared.folder: recipe})
    qwen, _ = load_model(warm_start(), recipe.model.dtype)
    store_features(qwen, prepared, prepared.studies, noise=True)


def train_writer(
    run: Path,
    prepared: Prepared,
    recipe: Recipe,
    taught: Sequence[StudyRow],
    judged: Sequence[StudyRow],
) -> tuple[ReportWriter, float]:
    """The warm-up that comes with ctscribe, trained on some studies, and CPU seconds of training.

    Its last weights are kept, whichever checkpoint had the lowest loss on the judged studies.
    """
    open_run(run, "train", {"recipe": recipe.model_dump(mode="json")})
    rows = build_pairs(taught, recipe.pairs, prepared), validation_pairs(judged)
    qwen, tokenizer = learner(warm_start(), recipe)
    visual = visual_source(qwen, prepared, [*rows[0], *rows[1]], recipe)
    pairs, asked = (PairDataset(prepared.by_name, r, tokenizer, visual, 4096) for r in rows)
    arguments = training_arguments(run, recipe)
    began = time.process_time()
    fit(arguments, qwen, tokenizer, pairs, asked, recipe)
    seconds = time.process_time() - began
    save_model(run / "best", qwen, tokenizer)
    return ReportWriter(run), seconds


def scan_columns(writer: ReportWriter, prepared: Prepared, split: Split) -> dict[str, np.ndarray]:
    """`written_columns` of the reports of a split, which are written where they are not there."""
    written = generate(writer, prepared, split, writer.run_dir / f"{split}.jsonl")
    return written_columns(written, prepared, split)


def written_columns(
    written: Sequence[PredictionRow], prepared: Prepared, split: Split
) -> dict[str, np.ndarray]:
    """What a page resamples: one number per scan, in alphabetical order of the scans.

    ``stated`` and ``true`` are the findings of the written and of the true report, a bit each;
    ``rouge_l`` is in 1e-4.
    """
    truth = as_reports(one_row_per_scan(prepared.split(split)))
    answers, _ = match_predictions(written, truth)
    statistics = scan_statistics(answers, truth, "ctrate-raw")
    clinical = statistics[:, NUM_LANGUAGE_COLUMNS:]
    counts = [clinical[:, len(FINDINGS) * k : len(FINDINGS) * (k + 1)].sum(1) for k in range(3)]
    return {
        "patient": patient_index([report.patient_id for report in truth]),
        **dict(zip(("hits", "false_alarms", "misses"), counts, strict=True)),
        **{f"matches_{n + 1}": statistics[:, n] for n in range(4)},
        "words": statistics[:, 8],
        "true_words": statistics[:, 9],
        "rouge_l": 1e4 * statistics[:, 10],
        "stated": bits(answers.labels),
        "true": bits([report.labels for report in truth]),
    }


def gap_columns(writer: ReportWriter, prepared: Prepared) -> dict[str, np.ndarray]:
    """Cross entropy of each report on its own and on another patient's scan, in 1e-4 nats."""
    scans = sorted(measure_gap(writer, prepared)["scans"], key=lambda scan: scan["scan_id"])
    return {name: 1e4 * np.array([scan[name] for scan in scans]) for name in ("own_ce", "other_ce")}


def threshold_curve(
    writer: ReportWriter, prepared: Prepared, run: Path
) -> dict[str, dict[str, object]]:
    """At each threshold what the told writer states, and what stock sentences would."""
    assert writer.calibration is not None  # tuning has fitted it
    found: dict[str, dict[str, object]] = {}
    for threshold in THRESHOLDS:
        moved = {"cue_threshold": threshold, "threshold": threshold}
        using = writer.with_settings(calibration=writer.calibration.model_copy(update=moved))
        told = generate(using, prepared, "test", run / f"told-{threshold}.jsonl")
        stock = generate_template(using, prepared, "test", run / f"stock-{threshold}.jsonl")
        found[str(threshold)] = {
            name: as_text(written_columns(rows, prepared, "test"))
            for name, rows in (("told", told), ("template", stock))
        }
    return found


def bits(labels: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Findings [scans, 18] as one number a scan."""
    return np.asarray(np.array(labels) @ _BITS)


def as_text(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Columns as a raw file keeps them."""
    return {
        name: " ".join(str(round(float(value))) for value in values)
        for name, values in columns.items()
    }


def stated_scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Coverage, precision and F1 from sums over scans: numbers, or one without each patient."""
    hits, false, missed = sums["hits"], sums["false_alarms"], sums["misses"]
    return {
        "coverage": hits / (hits + missed),
        "precision": hits / np.maximum(hits + false, 1),
        "f1": 2 * hits / (2 * hits + false + missed),
    }


def drawn_scores(kept: Mapping[str, str]) -> dict[str, Draws]:
    """Each metric of what a raw file keeps, of all patients once, then without each.

    Files without cross entropies, ``rouge_l``, ``stated`` and ``true`` have fewer metrics.
    """
    columns = {name: np.array(text.split(), float) for name, text in kept.items()}
    drawn = weights(columns.pop("patient").astype(np.int64))
    written = {f"written_{n}": np.maximum(0, columns["words"] - n + 1) for n in (1, 2, 3, 4)}
    findings = {name: columns.pop(name) for name in ("stated", "true") if name in columns}
    at = {name: drawn @ values for name, values in {**columns, **written}.items()}
    scans = drawn.sum(1)
    return {
        **stated_scores(at),
        **_bleu(at),
        **(_gap(at["own_ce"] / scans, at["other_ce"] / scans) if "own_ce" in at else {}),
        **({"rouge_l": at["rouge_l"] / scans / 1e4} if "rouge_l" in at else {}),
        **(_by_finding(drawn, **findings) if findings else {}),
    }


def _gap(own: Draws, other: Draws) -> dict[str, Draws]:
    """From cross entropies in 1e-4 nats."""
    own, other = own / 1e4, other / 1e4
    perplexities = {"own_perplexity": np.exp(own), "other_perplexity": np.exp(other)}
    return {"gap": other - own, **perplexities}


def _bleu(sums: Mapping[str, np.ndarray]) -> dict[str, Draws]:
    language = np.zeros((len(sums["words"]), NUM_LANGUAGE_COLUMNS))
    counted = [f"{kind}_{n}" for kind in ("matches", "written") for n in (1, 2, 3, 4)]
    language[:, :10] = np.stack([sums[name] for name in (*counted, "words", "true_words")], 1)
    language[:, -1] = 1  # scans, by which BLEU is not divided
    scores = language_scores(language)
    return {name: scores[name] for name in ("bleu_1", "bleu_4")}


def _by_finding(
    drawn: Float64[np.ndarray, "draws scans"], stated: np.ndarray, true: np.ndarray
) -> dict[str, Draws]:
    """Scores that need to know which of the 18 findings was right."""
    said, present = (
        [tuple(map(int, row)) for row in (codes.astype(int)[:, None] & _BITS) > 0]
        for codes in (stated, true)
    )
    scores = clinical_scores(drawn @ clinical_statistics(predictions=said, references=present))
    return {name: scores[name] for name in ("f1_macro", "label_accuracy")}


def training_summary(run_dir: Path, names: Sequence[str]) -> dict[str, float | None]:
    """Updates, means of some metrics over the last tenth of them, and the last validation."""
    rows = read_rows(run_dir / "metrics.jsonl", MetricsRow)

    def mean_of(name: str, among: list[MetricsRow]) -> float | None:
        values = [value for row in among if (value := getattr(row, name)) is not None]
        return round(float(np.mean(values)), 4) if values else None

    last = {name: mean_of(name, rows[-max(1, len(rows) // 10) :]) for name in names}
    whole = {"share_skipped_overall": mean_of("share_skipped", rows)}
    end = {"updates": rows[-1].step, "validation_ce": rows[-1].validation_ce}
    return {**last, **whole, **end}
