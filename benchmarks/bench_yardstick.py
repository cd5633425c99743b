"""Our numbers beside each scorer's own, on 140 made-up pairs with the texts that part scorers.

``make bench NAME=yardstick``, which puts pycocoevalcap 1.2 on the path; METEOR needs Java. The
pairs are written as the challenge, CT-CHAT and CT2Rep write files, and read by us from those. What
the other side compares is made here, from what is known of each tool and without our code: how it
handles strings, how it averages; the COCO scorers are pycocoevalcap's.
"""

import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-not-found]
from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]
from pycocoevalcap.meteor.meteor import Meteor  # type: ignore[import-not-found]
from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-not-found]

from benchmarks.bench_evaluate import made_up_report
from benchmarks.harness import RESULTS, record, table, write_page
from ctscribe.base.files import read_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.tables import format_csv
from ctscribe.measure.language import Profile, meteor
from ctscribe.measure.predictions import read_predictions
from ctscribe.measure.references import TablePaths, read_reference_tables
from ctscribe.measure.scans import as_reports, match_predictions
from ctscribe.measure.scores import evaluate_predictions
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_reports

NUM_PAIRS, SEED = 140, 0
ABSENT = 3
"""Findings that no reference has."""
PROFILES: tuple[Profile, ...] = ("vlm3d", "ctrate-raw", "r2gen")
SPECIAL = (
    ("<s> ", " </s>"),
    ("<|begin_of_text|>", "<|eot_id|>"),
    ("<|im_start|>assistant\n", "<|im_end|>"),
    ("[CLS] ", " [SEP] [PAD]"),
)
Scores = dict[str, float]


@dataclass(frozen=True)
class Pair:
    """A report and its reference, each as its sections; ``around`` is set about the report."""

    kind: str
    said: tuple[str, str]
    true: tuple[str, str]
    around: tuple[str, str] = ("", "")


def spaced(rng: random.Random, words: list[str]) -> str:
    """Words with all that parts scorers between them."""
    glue = rng.choices((" ", "  ", "\n", " . ", " .", "_ ", ' ." '), (60, 3, 3, 3, 3, 3, 3), k=250)
    return "".join(word + between for word, between in zip(words, glue, strict=False))


def draw_pairs() -> list[Pair]:
    """Twenty of each kind; the references have between 12 and 250 words, some of other scripts."""
    rng = random.Random(SEED)
    kinds: Sequence[Callable[[random.Random, list[str]], str]] = (
        lambda rng, words: " ".join(w for w in words if rng.random() < 0.9),
        lambda rng, words: "" if rng.random() < 0.5 else " ".join(words[:40]),
        lambda rng, words: rng.choice(words),
        lambda rng, words: " ".join(words).replace("the", "die Ölmühle").replace("no", "нет 肺"),
        lambda rng, words: " ".join(words * 5),
        lambda rng, words: " ".join(words[: rng.randint(20, len(words))]),
        spaced,
    )
    names = ("changed", "empty", "one word", "unicode", "very long", "special tokens", "spacing")
    pairs = []
    for number in range(NUM_PAIRS):
        kind = number % len(kinds)
        words = made_up_report(rng).split()[: rng.randint(12, 250)]
        true = (" ".join(words), f"Impression of June 202{number % 10}. Nodule of {number} mm.")
        if names[kind] == "unicode":
            true = (true[0].replace("the", "die Ölmühle"), true[1])
        said = (kinds[kind](rng, words).strip(), rng.choice(("Nodule of 4 mm.", true[1])))
        around = SPECIAL[number % len(SPECIAL)] if names[kind] == "special tokens" else ("", "")
        pairs.append(Pair(names[kind], said if said[0] else ("", ""), true, around))
    return pairs


def headed(sections: tuple[str, str]) -> str:
    """As the challenge's references read."""
    return f"Findings: {sections[0]} Impression: {sections[1]}" if any(sections) else ""


def joined(sections: tuple[str, str]) -> str:
    return " ".join(part for part in sections if part)


def by_challenge(text: str, *, predicted: bool) -> str:
    """What VLM3D's scorer does to a text, in its order."""
    if predicted:
        text = text.replace("<|eot_id|>", "").replace('"', "").replace("_", "")
    return text.replace("\n", "").replace(" . ", ".").replace(" .", ".")


def by_challenge_after(text: str, *, predicted: bool) -> str:
    """The same in the order of CT-CHAT's evaluation, which ``ctrate-raw`` has."""
    text = text.replace("\n", "").replace(" . ", ".").replace(" .", ".")
    return text.replace('"', "").replace("_", "") if predicted else text


def by_r2gen(text: str, *, predicted: bool) -> str:
    """R2Gen's tokenizer and the white space its vocabulary leaves."""
    text = text.replace("\n", " ")
    for double in ("  ", ".."):
        while double in text:
            text = text.replace(double, double[0])
    text = text.replace("1. ", "")
    for opening in (". ", " "):
        for number in "2345":
            text = text.replace(f"{opening}{number}. ", ". ")
    kept = [
        " ".join(re.sub(r"[.,?;*!%^&_+():-\[\]{}]", "", re.sub(r"[\"/\\']", "", part)).split())
        for part in text.strip().lower().split(". ")
    ]
    return " . ".join(kept) + " ."


def coco(said: Sequence[str], true: Sequence[str]) -> Scores:
    """What pycocoevalcap scores without Java."""
    hypotheses = {n: [text] for n, text in enumerate(said)}
    references = {n: [text] for n, text in enumerate(true)}
    bleu = Bleu(4).compute_score(references, hypotheses, verbose=0)[0]
    return {
        **{f"bleu_{n}": value for n, value in enumerate(bleu, 1)},
        "bleu_mean": sum(bleu) / 4,
        "rouge_l": float(Rouge().compute_score(references, hypotheses)[0]),
        "cider": float(Cider().compute_score(references, hypotheses)[0]),
    }


def coco_meteor(said: Sequence[str], true: Sequence[str]) -> Scores:
    """METEOR by pycocoevalcap; its program reads one text a line."""
    lines = [{n: [" ".join(t.split())] for n, t in enumerate(texts)} for texts in (true, said)]
    return {"meteor": float(Meteor().compute_score(*lines)[0])}


def clinical(said: np.ndarray, true: np.ndarray) -> Scores:
    """The challenge's numbers about findings, finding by finding, and CRG by its own formula."""
    rows = []
    for one, other in zip(said.T, true.T, strict=True):
        tp, fp, fn = (one & other).sum(), (one & ~other).sum(), (~one & other).sum()
        precision, recall = (tp / (tp + wrong) if tp + wrong else 0.0 for wrong in (fp, fn))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        rows.append((precision, recall, f1, (one == other).mean()))
    means = np.mean(rows, axis=0)
    hits, misses, alarms = (said & true).sum(), (~said & true).sum(), (said & ~true).sum()
    present = true.sum()
    reward = (true.size - present) / (2 * present)
    score, most = reward * hits - reward * misses - alarms, reward * present
    names = ("precision_macro", "coverage_macro", "f1_macro", "label_accuracy")
    return {
        **dict(zip(names, map(float, means), strict=True)),
        "crg": float(most / (2 * most - score)),
    }


def write_files(folder: Path, pairs: Sequence[Pair], *, special: bool) -> None:
    """Predictions as the challenge's scorer finds them, references, and labels by AccessionNo."""
    names = [f"valid_{n + 1}_a_1" for n in range(len(pairs))]
    texts = [headed(pair.said) for pair in pairs]
    if special:
        texts = [text.join(pair.around) for pair, text in zip(pairs, texts, strict=True)]
    reports = [
        {"input_image_name": f"{name}.mha", "report": text}
        for name, text in zip(names, texts, strict=True)
    ]
    jobs = [{"outputs": [{"value": {"generated_reports": reports}}]}]
    (folder / "predictions.json").write_text(json.dumps(jobs), "utf-8")
    truth = {name: headed(pair.true) for name, pair in zip(names, pairs, strict=True)}
    (folder / "truth.json").write_text(json.dumps(truth), "utf-8")
    rows = [(name, *row) for name, row in zip(names, true_labels().astype(int), strict=True)]
    (folder / "labels.csv").write_text(format_csv([("AccessionNo", *FINDINGS), *rows]), "utf-8")


def true_labels() -> np.ndarray:
    """Made up; the last findings are nowhere."""
    labels = np.random.default_rng(SEED).random((NUM_PAIRS, len(FINDINGS))) < 0.2
    labels[:, -ABSENT:] = False
    return np.asarray(labels)


def ours(folder: Path, profile: Profile) -> Scores:
    paths = TablePaths(folder / "truth.json", folder / "labels.csv")
    references = read_reference_tables(paths, "valid")
    config = EvaluateConfig(profile=profile, resamples=100)
    model = evaluate_predictions(folder / "predictions.json", references, config)["model"]
    if profile == "vlm3d":
        rows = read_predictions(folder / "predictions.json", references.studies)
        truth = as_reports(references.studies)
        true = [report.compared(profile) for report in truth]
        said = match_predictions(rows, truth)[0].compared(profile)
        model["meteor"] = meteor(predictions=said, references=true, profile=profile)
    return {name: score["value"] for name, score in model.items()}


def theirs(pairs: Sequence[Pair], profile: Profile, *, special: bool = False) -> Scores:
    """What the other scorer says; its own special tokens aside, it is given none unless asked."""
    handle = {"vlm3d": by_challenge, "ctrate-raw": by_challenge_after, "r2gen": by_r2gen}[profile]
    one_text = headed if profile == "vlm3d" else joined
    said = [one_text(pair.said) for pair in pairs]
    if special:
        said = [text.join(pair.around) for pair, text in zip(pairs, said, strict=True)]
    true = [one_text(pair.true) for pair in pairs]
    texts = (
        [handle(text, predicted=True) for text in said],
        [handle(text, predicted=False) for text in true],
    )
    found = coco(*texts)
    if profile != "vlm3d":
        del found["bleu_mean"]
        return found
    if special:
        return found
    labels = label_reports(["\n".join(filter(None, pair.said)) for pair in pairs])
    return found | coco_meteor(*texts) | clinical(labels, true_labels())


def measure() -> dict[str, Any]:
    pairs = draw_pairs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, pairs, special=True)
        rows: list[dict[str, Any]] = [
            {"profile": profile, "metric": metric, "ours": found[metric], "theirs": value}
            for profile in PROFILES
            for found in [ours(folder, profile)]
            for metric, value in theirs(pairs, profile).items()
        ]
    kinds = {
        kind: sum(pair.kind == kind for pair in pairs)
        for kind in dict.fromkeys(p.kind for p in pairs)
    }
    left_in = theirs(pairs, "vlm3d", special=True)
    return {
        "pairs": len(pairs),
        "kinds": kinds,
        "seed": SEED,
        "rows": rows,
        "largest": max(abs(row["ours"] - row["theirs"]) for row in rows),
        "special_tokens_left_in": {name: left_in[name] for name in ("bleu_1", "bleu_4", "rouge_l")},
    }


def page(raw: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        (
            row["profile"],
            row["metric"],
            f"{row['ours']:.12f}",
            f"{row['theirs']:.12f}",
            f"{row['ours'] - row['theirs']:.0e}" if row["ours"] != row["theirs"] else "0",
        )
        for row in raw["rows"]
    ]
    plain = {row["metric"]: row["theirs"] for row in raw["rows"] if row["profile"] == "vlm3d"}
    left_in = raw["special_tokens_left_in"].items()
    return {
        **raw,
        "kinds": ", ".join(f"{number} {kind}" for kind, number in raw["kinds"].items()),
        "table": table(("profile", "metric", "ours", "theirs", "difference"), rows),
        "special": table(
            ("metric", "without", "left in"),
            [(name, f"{plain[name]:.4f}", f"{value:.4f}") for name, value in left_in],
        ),
    }


if __name__ == "__main__":
    record("yardstick", measure())
    write_page("yardstick", page(read_json(RESULTS / "yardstick.json")))
