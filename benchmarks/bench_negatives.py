"""Time and memory for drawing negatives, at CT-RATE's size and at ten million volumes.

Labels have CT-RATE's prevalences and are tied as in `phantom.prevalence`: about 3.4 findings a
volume, about 11 % without any; patients have two or three volumes. Each size runs in a process of
its own. The naive way, which looks at every volume for every volume, is timed in the same run at a
size it can do.
"""

from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.harness import record
from benchmarks.timing import alone, least_s, measured
from ctscribe.learn.pairs.hard import nearest_contradictions
from ctscribe.learn.pairs.heter import draw_partners
from ctscribe.phantom.study import FINDING_MODEL

NUM_CT_RATE, NUM_LARGE, NUM_NAIVE = 47_149, 10_000_000, 16_000
MIN_DISTANCE, REPEATS, CHUNK = 10, 3, 200_000
VOLUMES_PER_PATIENT = 47_149 / 20_000
APPEARANCE_NUMBERS = 26


def cohort(num_volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [volumes, 18] and patients [volumes]; a patient's volumes share their labels."""
    rng = np.random.default_rng(0)
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


def draw_naively(labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The same distribution, by looking at every volume for every volume."""
    rng = np.random.default_rng(0)
    index = np.empty(len(labels), np.int64)
    for row in range(len(labels)):
        distance, other = (labels != labels[row]).sum(1), patients != patients[row]
        required = MIN_DISTANCE
        while not (eligible := np.flatnonzero(other & (distance >= required))).size:
            required -= 1
        index[row] = rng.choice(eligible)
    return index


def once(num_volumes: int) -> dict[str, Any]:
    labels, patients = cohort(num_volumes)
    partners, cost = measured(lambda: draw_partners(labels, patients, MIN_DISTANCE, 0))
    if (patients[partners.index] == patients).any():
        raise AssertionError("a partner is the same patient")
    return {
        "seconds": round(cost.wall_s, 3),
        "cpu_seconds": round(cost.cpu_s, 3),
        "peak_mb": round(cost.peak_mb),
        "label_mb": round((labels.nbytes + patients.nbytes) / 1e6),
        "patterns": len(np.unique(np.packbits(labels, axis=1), axis=0)),
        "findings_per_volume": round(float(labels.sum(1).mean()), 3),
        "share_without_findings": round(float((labels.sum(1) == 0).mean()), 3),
        "share_relaxed": round(float((partners.relaxed_by > 0).mean()), 4),
    }


def of_another(num_volumes: int, what: str) -> dict[str, float]:
    """The paper's draw, and in the same process the search for look-alikes or the naive draw."""
    labels, patients = cohort(num_volumes)
    looks = np.random.default_rng(1).random((num_volumes, APPEARANCE_NUMBERS))
    others = {
        "hard": lambda: nearest_contradictions(labels, patients, looks, 8),
        "naive": lambda: draw_naively(labels, patients),
    }
    other = round(least_s(others[what], 1), 3)
    ours = least_s(lambda: draw_partners(labels, patients, MIN_DISTANCE, 0), REPEATS)
    return {"volumes": num_volumes, "paper": round(ours, 3), what: other, "ratio": other / ours}


def main() -> None:
    cohorts = {str(n): alone(once, n) for n in (NUM_CT_RATE, NUM_LARGE)}
    hard, naive = alone(of_another, NUM_CT_RATE, "hard"), alone(of_another, NUM_NAIVE, "naive")
    record("negatives", {"seconds_hard": hard, "seconds_naive": naive, "cohorts": cohorts})


if __name__ == "__main__":
    main()
