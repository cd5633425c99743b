"""Time for evaluating a validation set of CT-RATE's size, and the gain over the COCO scorers.

Reports are made up: 250 words drawn like natural language, 3,039 predictions, 1,304 patients.
Timed are the scores with all baselines, a label head's among them, and the comparison with a
second run. ``max_abs_difference`` and ``rouge_speedup`` need pycocoevalcap 1.2, which
`make bench-evaluate` puts on the path.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from ctscribe.base.files import write_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.runs import provenance
from ctscribe.measure.compare import compare
from ctscribe.measure.language import (
    LANGUAGE_METRICS,
    language_scores,
    language_statistics,
    normalise,
    rouge_l,
)
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS

NUM_SCANS, NUM_PATIENTS, NUM_TRAINING, NUM_WORDS = 3039, 1304, 3000, 250
NUM_COMPARED = 60
OUT = Path(__file__).parent / "results" / "evaluate.json"

STOCK = (
    "The trachea and both main bronchi are open.",
    "The heart and the great vessels are of normal size.",
    "No pleural or pericardial effusion was detected.",
    "No enlarged lymph nodes are seen in the mediastinum.",
    "The oesophagus has a normal calibre.",
    "No mass or infiltrative lesion was detected in the lungs.",
    "The upper abdominal organs in the section are natural.",
    "The heights of the vertebral bodies are preserved.",
)
TEMPLATES = (
    "No {finding} was detected in the {place}.",
    "There is {finding} in the {place}.",
    "{finding} measuring {size} mm is observed in the {place}, and no {other} is seen.",
    "The {place} is normal.",
    "In the {place}, {finding} was not observed.",
    "{finding} ({other}?) is seen at the level of the {place}.",
    "The {place} cannot be evaluated optimally because no contrast agent was given on day {size}.",
    "Degenerative changes of degree {size} are observed in the bones next to the {place}.",
)
THINGS = (*(finding.lower() for finding in FINDINGS), "a nodule", "ground glass density", "mass")
PLACES = (
    "right upper lobe",
    "left lower lobe",
    "mediastinum",
    "both lungs",
    "aortic arch",
    "liver",
)


def made_up_report(rng: random.Random) -> str:
    """About 250 words: stock sentences, and others that give the labeler work."""
    words: list[str] = [word for sentence in STOCK for word in sentence.split()]
    while len(words) < NUM_WORDS:
        finding, other = rng.sample(THINGS, 2)
        sentence = rng.choice(TEMPLATES).format(
            finding=finding, other=other, place=rng.choice(PLACES), size=rng.randint(2, 40)
        )
        words += sentence.split()
    return " ".join(words)


def study(number: int, split: str, rng: random.Random) -> StudyRow:
    return StudyRow.model_validate(
        {
            "volume_name": f"{split}_{number}_a_1.nii.gz",
            "patient_id": f"{split}_{number % NUM_PATIENTS}",
            "scan_id": f"{split}_{number}_a",
            "source_split": split,
            "findings": made_up_report(rng),
            "impression": "",
            "labels": tuple(int(rng.random() < 0.2) for _ in FINDINGS),
            "spacing_mm": (1.0, 1.0, 1.0),
            "shape_xyz": (1, 1, 1),
            "slice_indices": (),
            "position_mm": (),
            "frame_to_ras": (),
        }
    )


def prediction(of: StudyRow, text: str) -> PredictionRow:
    return PredictionRow(
        scan_id=of.scan_id,
        patient_id=of.patient_id,
        volume_name=of.volume_name,
        findings=text,
        impression="",
        num_tokens=NUM_WORDS,
        finished=True,
    )


def against_coco(written: list[str], truth: list[str]) -> dict[str, float]:
    """The same scores by pycocoevalcap on some pairs: largest difference, ROUGE-L's speed."""
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-not-found]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-not-found]

    hypotheses = {i: [normalise(t, "ctrate-raw", predicted=True)] for i, t in enumerate(written)}
    references = {i: [normalise(t, "ctrate-raw", predicted=False)] for i, t in enumerate(truth)}
    theirs: dict[str, Any] = dict(
        zip(
            LANGUAGE_METRICS,
            Bleu(4).compute_score(references, hypotheses, verbose=0)[0],
            strict=False,
        )
    )
    theirs["cider"] = Cider().compute_score(references, hypotheses)[0]
    began = time.perf_counter()
    theirs["rouge_l"] = Rouge().compute_score(references, hypotheses)[0]
    seconds_theirs = time.perf_counter() - began
    began = time.perf_counter()
    for number in hypotheses:
        rouge_l(hypotheses[number][0], references[number][0])
    seconds_ours = time.perf_counter() - began
    statistics = language_statistics(predictions=written, references=truth)
    ours = language_scores(statistics.sum(axis=0, keepdims=True))
    return {
        "max_abs_difference": max(abs(float(ours[m][0]) - theirs[m]) for m in LANGUAGE_METRICS),
        "rouge_speedup": seconds_theirs / seconds_ours,
    }


def main() -> None:
    rng = random.Random(0)
    references = [study(number, "valid", rng) for number in range(NUM_SCANS)]
    training = [study(number, "train", rng) for number in range(NUM_TRAINING)]
    predictions = [prediction(reference, made_up_report(rng)) for reference in references]
    others = [prediction(reference, made_up_report(rng)) for reference in references]
    stated = {
        reference.scan_id: tuple(int(rng.random() < 0.2) for _ in FINDINGS)
        for reference in references
    }
    config = EvaluateConfig(resamples=2000)
    began, cpu_began = time.perf_counter(), time.process_time()
    scores = evaluate(predictions, references, training, config, stated=stated)
    evaluated = time.perf_counter()
    compare([predictions], {"other": [others]}, references, config)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    compared = slice(0, NUM_COMPARED)
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "seconds_evaluate": evaluated - began,
        "scans": scores["n"]["scans"],
        "resamples": config.resamples,
        **against_coco(
            [row.findings for row in predictions[compared]],
            [row.findings for row in references[compared]],
        ),
        **provenance(),
    }
    write_json(OUT, result)
    print(json.dumps(result, indent=2), file=sys.stdout)


if __name__ == "__main__":
    main()
