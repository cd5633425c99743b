"""Time and memory at the size of CT-RATE: evaluate, look-alikes, pairs and doctor.

Each measurement runs in a process of its own. Reports are worded as the phantom's, from a few
hundred drawn chests; no volume is rendered, and those that tables name are not on disk. Beside the
time of pairs stands what parsing its rows alone takes, which is its floor.
"""

import csv
import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.timing import alone, measured, resident_mb
from ctscribe.base.files import write_json
from ctscribe.base.recipe import (
    EvaluateConfig,
    ModelConfig,
    PairsConfig,
    PhantomConfig,
    SlicesConfig,
    SplitsConfig,
    VolumeConfig,
)
from ctscribe.base.rows import PairRow, each_row
from ctscribe.data.ct_rate import LABEL_COLUMNS, METADATA_COLUMNS, REPORT_COLUMNS, CtRateTree
from ctscribe.data.doctor import examine
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.audit import audit_pairs
from ctscribe.learn.pairs.build import build_training_pairs
from ctscribe.measure.language import ngram_matrices
from ctscribe.measure.references import TablePaths, table_references
from ctscribe.measure.scores import evaluate_predictions
from ctscribe.phantom.study import draw_body, draw_patient, draw_study
from ctscribe.phantom.wording import write_report
from ctscribe.show.look_alikes import closest_pairs
from ctscribe.show.scoreboard import write_run_board
from ctscribe.text.findings import FINDINGS

NUM_FEW, NUM_SCANS, NUM_PAIRS, NUM_LISTED = 3000, 24_128, 500_000, 514_000
NUM_CHESTS, NUM_CANDIDATES, SEED = 300, 200, 0
Told = tuple[str, str, tuple[int, ...]]
"""Findings, impression and the 18 labels of a report."""


def reports(seed: int) -> Iterator[Told]:
    """Reports without end, each a drawn chest in other words."""
    rng, config = np.random.default_rng(seed), PhantomConfig()
    patients = [draw_patient(rng) for _ in range(NUM_CHESTS)]
    chests = [draw_study(rng, draw_body(rng, each), each, config) for each in patients]
    while True:
        chest = chests[rng.integers(NUM_CHESTS)]
        told = write_report(rng, chest.drawings, contrast=bool(rng.random() < 0.35))
        yield told.findings, told.impression, chest.labels


def write_table(path: Path, columns: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns])
        csv.writer(file).writerows(rows)
    return path


def name_of(number: int) -> str:
    """Two scans a patient, two volumes a scan."""
    return f"train_{number // 4 + 1}_{'ab'[number // 2 % 2]}_{number % 2 + 1}.nii.gz"


def cost(call: Callable[[], object], rows: int) -> dict[str, float]:
    """What a call costs, and the most memory that this process ever held."""
    _, spent = measured(call)
    return {
        "rows": rows,
        "seconds": round(spent.wall_s, 1),
        "cpu_seconds": round(spent.cpu_s, 1),
        "peak_mb": round(resident_mb("VmHWM")),
    }


def evaluated(folder: Path, number: int) -> dict[str, float]:
    """Scores, blind bars and the page, of tables: the command `evaluate` without printing."""
    scores_columns = ("VolumeName", "scan", "patient", "Findings_EN", "Impressions_EN", *FINDINGS)
    told = enumerate(islice(reports(SEED), number))
    rows = ((f"{n}.nii.gz", n, n // 2, *text, *labels) for n, (*text, labels) in told)
    paths = TablePaths(write_table(folder / "references.csv", scores_columns, rows))
    said = enumerate(islice(reports(SEED + 1), number))
    answers = ((f"{n}.nii.gz", f"{findings} {impression}") for n, (findings, impression, _) in said)
    predictions = write_table(folder / "said.csv", ("VolumeName", "report_text"), answers)

    def run() -> None:
        references = table_references(paths, None, SplitsConfig())
        scores = evaluate_predictions(predictions, references, EvaluateConfig(resamples=2000))
        write_json(folder / "scores.json", scores)
        write_run_board(folder / "scores.html", scores, predictions, references)

    return cost(run, number)


def alike(number: int) -> dict[str, float]:
    """The pairs among which two look-alikes are chosen, without the frames that choose them."""
    texts = [
        f"{findings} {impression}" for findings, impression, _ in islice(reports(SEED), number)
    ]

    def run() -> None:
        *_, has = ngram_matrices([text.split() for text in texts], 2)
        has.data[:] = 1
        closest_pairs(has.astype(np.int64), np.arange(number), NUM_CANDIDATES)

    return cost(run, number)


def paired(folder: Path, number: int) -> dict[str, Any]:
    """The rows and the audit of `pairs`, without the frames that its examples show."""
    frame: dict[str, Any] = {"spacing_mm": (0.7, 0.7, 1.5), "shape_xyz": (512, 512, 300)}
    frame |= {"slice_indices": tuple(range(270, 0, -30)), "frame_to_ras": np.eye(4).tolist()}
    frame |= {"position_mm": tuple(range(270, 0, -30)), "source_split": "train", "split": "train"}
    with (folder / "studies.jsonl").open("w", encoding="utf-8") as file:
        for n, (findings, impression, labels) in told(number):
            name = name_of(n)
            own = {"volume_name": name, "patient_id": name.rsplit("_", 2)[0], "labels": labels}
            own |= {"scan_id": name.rsplit("_", 1)[0], "manufacturer": ("A", "B", "C")[n % 3]}
            own |= {"findings": findings, "impression": impression}
            file.write(json.dumps(frame | own) + "\n")

    def run() -> None:
        prepared = Prepared(folder)
        build_training_pairs(prepared, folder, PairsConfig(strategy="heter"))
        audit_pairs(prepared.outlines, each_row(folder / "pairs.jsonl", PairRow))

    floor = measured(lambda: read_only(folder / "studies.jsonl"))[1].cpu_s
    return cost(run, number) | {"cpu_seconds_of_reading": round(floor, 1)}


def read_only(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        for line in file:
            json.loads(line)


def listed(folder: Path, number: int) -> dict[str, float]:
    """`doctor` of a tree in CT-RATE's shape whose volumes are still to be downloaded."""
    tree, about = CtRateTree(folder), dict.fromkeys(METADATA_COLUMNS, "")
    about |= {"Manufacturer": "A", "ConvolutionKernel": "Br40f", "XYSpacing": "[0.7, 0.7]"}
    about |= {"ZSpacing": "1.5", "NumberofSlices": "300", "RescaleSlope": "1"}
    spoken = ((name_of(n), "", "", *text) for n, (*text, _) in told(number))
    write_table(tree.reports_path("train"), REPORT_COLUMNS, spoken)
    labelled = ((name_of(n), *labels) for n, (*_, labels) in told(number))
    write_table(tree.labels_path("train"), LABEL_COLUMNS, labelled)
    places = np.random.default_rng(SEED).normal(-200, 20, (number, 3)).round(3).tolist()
    scanned = (
        (about | {"VolumeName": name_of(n), "ImagePositionPatient": str(place)}).values()
        for n, place in enumerate(places)
    )
    write_table(tree.metadata_path("train"), METADATA_COLUMNS, map(tuple, scanned))
    return cost(lambda: examine(folder, VolumeConfig(), SlicesConfig(), ModelConfig()), number)


def listed_by_manifest(folder: Path, number: int) -> dict[str, float]:
    """`doctor` of a manifest whose volumes are missing."""
    columns = ("volume", "patient", "scan", "findings", "impression", *FINDINGS)
    rows = ((f"v/{n}.nii.gz", n // 2, n, *text, *labels) for n, (*text, labels) in told(number))
    path = write_table(folder / "scans.csv", columns, rows)
    return cost(lambda: examine(path, VolumeConfig(), SlicesConfig(), ModelConfig()), number)


def told(number: int) -> Iterator[tuple[int, Told]]:
    """Rows of which a few thousand differ: neither pairs nor doctor minds the words."""
    return enumerate(islice(cycle(islice(reports(SEED), NUM_FEW)), number))


def main() -> None:
    from benchmarks.harness import record  # brings torch, which nothing here needs

    with TemporaryDirectory() as name:
        folder = Path(name)
        few, all_scans = (alone(evaluated, folder, n) for n in (NUM_FEW, NUM_SCANS))
        result = {
            "evaluate": all_scans,
            "evaluate_few": few,
            "evaluate_growth": all_scans["cpu_seconds"] / few["cpu_seconds"],
            "look_alikes": [alone(alike, n) for n in (NUM_FEW, NUM_SCANS)],
            "pairs": alone(paired, folder, NUM_PAIRS),
            "doctor_ct_rate": alone(listed, folder / "tree", NUM_LISTED),
            "doctor_manifest": alone(listed_by_manifest, folder, NUM_LISTED),
        }
    record("scale", result)


if __name__ == "__main__":
    main()
