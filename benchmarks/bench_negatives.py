"""Time and memory for drawing negatives, at CT-RATE's size and at ten million volumes.

Labels have CT-RATE's prevalences and are tied as in `phantom.prevalence`: about 3.4 findings a
volume, about 11 % without any; patients have two or three volumes. Each size runs in a process of
its own, whose peak memory counts labels and patients too. The naive way, which looks at every
volume for every volume, is timed in the same run at a size it can do.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from ctscribe.base.files import write_json
from ctscribe.base.runs import provenance
from ctscribe.learn.pairs.hard import nearest_contradictions
from ctscribe.pairs.constrained import draw_constrained_partners
from ctscribe.pairs.negatives import draw_partners
from ctscribe.phantom.study import FINDING_MODEL

NUM_CT_RATE, NUM_LARGE, NUM_NAIVE = 47_149, 10_000_000, 16_000
MIN_DISTANCE, REPEATS, CHUNK = 10, 3, 200_000
VOLUMES_PER_PATIENT = 47_149 / 20_000
APPEARANCE_NUMBERS = 26
OUT = Path(__file__).parent / "results" / "negatives.json"


def cohort(num_volumes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels [volumes, 18] and patients [volumes]; a patient's volumes share their labels."""
    rng = np.random.default_rng(seed)
    num_patients = round(num_volumes / VOLUMES_PER_PATIENT)
    load = np.array([weights for _, _, weights in FINDING_MODEL.values()])
    own = np.sqrt(1 - (load**2).sum(1))
    threshold = [NormalDist().inv_cdf(1 - share) for share, _, _ in FINDING_MODEL.values()]
    labels = np.empty((num_patients, len(FINDING_MODEL)), np.uint8)
    for at in range(0, num_patients, CHUNK):
        some = labels[at : at + CHUNK]
        drive = rng.standard_normal((len(some), load.shape[1])) @ load.T
        some[:] = drive + own * rng.standard_normal(some.shape) > threshold
    patients = np.sort(rng.integers(0, num_patients, num_volumes))
    return labels[patients], patients


def naive(labels: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """The same distribution, by looking at every volume for every volume."""
    rng = np.random.default_rng(seed)
    index = np.empty(len(labels), np.int64)
    for row in range(len(labels)):
        distance = (labels != labels[row]).sum(1)
        other = patients != patients[row]
        required = MIN_DISTANCE
        while not (eligible := np.flatnonzero(other & (distance >= required))).size:
            required -= 1
        index[row] = rng.choice(eligible)
    return index


def seconds_of(draw: Callable[[], Any], repeats: int = 1) -> float:
    """Shortest time of a few."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        draw()
        times.append(time.perf_counter() - began)
    return round(min(times), 3)


def measure(num_volumes: int) -> dict[str, Any]:
    labels, patients = cohort(num_volumes)
    began, began_cpu = time.perf_counter(), time.process_time()
    partners = draw_partners(labels, patients, MIN_DISTANCE, 0)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    if (patients[partners.index] == patients).any():
        raise AssertionError("a partner is the same patient")
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "patterns": len(np.unique(np.packbits(labels, axis=1), axis=0)),
        "findings_per_volume": round(float(labels.sum(1).mean()), 3),
        "share_without_findings": round(float((labels.sum(1) == 0).mean()), 3),
        "share_relaxed": round(float((partners.relaxed_by > 0).mean()), 4),
    }


def measure_options(num_volumes: int) -> dict[str, Any]:
    """At CT-RATE's size: the paper's draw, each option, and the search for look-alikes."""
    labels, patients = cohort(num_volumes)
    rng = np.random.default_rng(1)
    scanners, appearance = (
        rng.integers(0, 3, NUM_CT_RATE),
        rng.random((NUM_CT_RATE, APPEARANCE_NUMBERS)),
    )
    options: dict[str, dict[str, Any]] = {
        "reuse_cap": {"reuse_cap": 3},
        "balanced": {"balanced": True},
        "match_scanner": {"scanners": scanners},
    }
    seconds = {
        name: seconds_of(
            lambda knobs=knobs: draw_constrained_partners(  # type: ignore[misc]
                labels, patients, MIN_DISTANCE, 0, **knobs
            )
        )
        for name, knobs in options.items()
    }
    hard = seconds_of(lambda: nearest_contradictions(labels, patients, appearance, 8))
    ours = seconds_of(lambda: draw_partners(labels, patients, MIN_DISTANCE, 0), REPEATS)
    return {"paper": ours, **seconds, "hard": hard}


def measure_naive(num_volumes: int) -> dict[str, Any]:
    labels, patients = cohort(num_volumes)
    theirs = seconds_of(lambda: naive(labels, patients, 0))
    ours = seconds_of(lambda: draw_partners(labels, patients, MIN_DISTANCE, 0), REPEATS)
    return {
        "volumes": num_volumes,
        "seconds_naive": theirs,
        "seconds": ours,
        "times_faster": round(theirs / ours, 1),
    }


def alone(function: Callable[[int], dict[str, Any]], num_volumes: int) -> dict[str, Any]:
    """Runs in a fresh process, so that one measurement's memory is not another's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, num_volumes).result()


def main() -> None:
    options = alone(measure_options, NUM_CT_RATE)
    ct_rate, large = alone(measure, NUM_CT_RATE), alone(measure, NUM_LARGE)
    result = {
        "seconds_47k": options["paper"],
        "seconds_10m": large["seconds"],
        "peak_mb_10m": large["peak_mb"],
        "seconds_47k_by_option": options,
        "naive": alone(measure_naive, NUM_NAIVE),
        "cohorts": {str(NUM_CT_RATE): ct_rate, str(NUM_LARGE): large},
        **provenance(),
    }
    write_json(OUT, result)
    print(json.dumps(result, indent=2), file=sys.stdout)


if __name__ == "__main__":
    main()
