"""Time for evaluating a validation set of CT-RATE's size, and the gain over the COCO scorers.

Reports are made up: 250 words drawn like natural language, 3,039 predictions, 1,304 patients.
Timed are the scores with all baselines, a label head's among them, and the comparison with a
second run. ``rouge_speedup`` needs pycocoevalcap 1.2, which `make bench NAME=evaluate` puts on the
path.
"""

import random

from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-not-found]

from benchmarks.harness import record
from benchmarks.timing import measured
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, ReportedRow
from ctscribe.measure.compare import compare
from ctscribe.measure.language import each_rouge_l, normalise
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS

NUM_SCANS, NUM_PATIENTS, NUM_TRAINING, NUM_WORDS = 3039, 1304, 3000, 250
NUM_COMPARED = 60
CONFIG = EvaluateConfig(resamples=2000)
STOCK = (
    "The trachea and both main bronchi are open. The heart and the great vessels are of normal "
    "size. No pleural or pericardial effusion was detected. No enlarged lymph nodes are seen in "
    "the mediastinum. The oesophagus has a normal calibre. No mass or infiltrative lesion was "
    "detected in the lungs. The heights of the vertebral bodies are preserved."
)
TEMPLATES = (
    "No {finding} was detected in the {place}.",
    "There is {finding} in the {place}.",
    "{finding} measuring {size} mm is observed in the {place}, and no {other} is seen.",
    "In the {place}, {finding} was not observed.",
    "{finding} ({other}?) is seen at the level of the {place}.",
    "The {place} cannot be evaluated optimally because no contrast agent was given on day {size}.",
    "Degenerative changes of degree {size} are observed in the bones next to the {place}.",
)
THINGS = (*(finding.lower() for finding in FINDINGS), "a nodule", "ground glass density", "mass")
PLACES = ("right upper lobe", "left lower lobe", "mediastinum", "both lungs", "aortic arch")


def made_up_report(rng: random.Random) -> str:
    """About 250 words: stock sentences, and others that give the labeler work."""
    words = STOCK.split()
    while len(words) < NUM_WORDS:
        finding, other = rng.sample(THINGS, 2)
        sentence = rng.choice(TEMPLATES).format(
            finding=finding, other=other, place=rng.choice(PLACES), size=rng.randint(2, 40)
        )
        words += sentence.split()
    return " ".join(words)


def made_up_labels(rng: random.Random) -> tuple[int, ...]:
    return tuple(int(rng.random() < 0.2) for _ in FINDINGS)


def reference(number: int, split: str, rng: random.Random) -> ReportedRow:
    row = {"volume_name": f"{split}_{number}_a_1.nii.gz", "scan_id": f"{split}_{number}_a"}
    row |= {"patient_id": f"{split}_{number % NUM_PATIENTS}", "source_split": split}
    written = {"findings": made_up_report(rng), "impression": "", "labels": made_up_labels(rng)}
    return ReportedRow.model_validate(row | written)


def prediction(of: ReportedRow, rng: random.Random) -> PredictionRow:
    names = of.model_dump(include={"scan_id", "patient_id", "volume_name"})
    return PredictionRow(**names, findings=made_up_report(rng), impression="")


def rouge_speedup(written: list[str], truth: list[str]) -> float:
    """How many times as fast as pycocoevalcap's is our ROUGE-L; `make oracle` holds its values."""
    hypotheses = {i: [normalise(t, "ctrate-raw", predicted=True)] for i, t in enumerate(written)}
    references = {i: [normalise(t, "ctrate-raw", predicted=False)] for i, t in enumerate(truth)}
    _, theirs = measured(lambda: Rouge().compute_score(references, hypotheses))
    _, ours = measured(
        lambda: each_rouge_l(
            [[h for (h,) in hypotheses.values()]], [r for (r,) in references.values()]
        )
    )
    return theirs.wall_s / ours.wall_s


def main() -> None:
    rng = random.Random(0)
    references = [reference(number, "valid", rng) for number in range(NUM_SCANS)]
    training = [reference(number, "train", rng) for number in range(NUM_TRAINING)]
    predictions, others = ([prediction(of, rng) for of in references] for _ in range(2))
    told = {of.scan_id: made_up_labels(rng) for of in references}
    scores, evaluated = measured(
        lambda: evaluate(predictions, references, training, CONFIG, label_head=told)
    )
    _, compared = measured(lambda: compare([predictions], {"other": [others]}, references, CONFIG))
    texts = [[row.findings for row in rows[:NUM_COMPARED]] for rows in (predictions, references)]
    result = {
        "seconds": evaluated.wall_s + compared.wall_s,
        "cpu_seconds": evaluated.cpu_s + compared.cpu_s,
        "seconds_evaluate": evaluated.wall_s,
        "scans": scores["n"]["scans"],
        "resamples": CONFIG.resamples,
        "rouge_speedup": rouge_speedup(*texts),
    }
    record("evaluate", result)


if __name__ == "__main__":
    main()
