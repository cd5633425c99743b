"""Hard negatives: volumes that look alike but contradict the report, redrawn in each epoch.

Similarity is measured on what is independent of findings: scanner, patient, build, image noise.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.spatial.distance import cdist

from ctscribe.base.rows import GapRow, PairRow
from ctscribe.base.types import Labels
from ctscribe.data.prepared import AnyStudy, Prepared
from ctscribe.learn.pairs.heter import disputed_findings, encode_patterns
from ctscribe.scan.types import Frames

THUMBNAIL = 4
"""Side in pixels of the downscaled mean frame."""
_DISTANCES_AT_ONCE = 1 << 23
"""Distances in memory at once, whatever the number of volumes."""


def appearances(
    prepared: Prepared, studies: Sequence[AnyStudy]
) -> Float64[np.ndarray, "studies numbers"]:
    """A feature vector per study; scans look the more alike, the closer their vectors.

    Five groups of features have the same weight: the mean frame scaled to 4 × 4; the image noise,
    which depends on kernel and dose; voxel size and height of the lungs; age and sex; manufacturer.
    Features are standardised over the studies; unknown ones get the mean.

    Reads every study's frames once.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_CACHE`` when frames are not as prepared.
    """
    images = [_thumbnail_and_grain(prepared.frames(study)) for study in studies]
    groups = [
        np.array([thumbnail for thumbnail, _ in images]),
        np.array([[grain] for _, grain in images]),
        np.array([[s.spacing_mm[0], s.position_mm[0] - s.position_mm[-1]] for s in studies]),
        np.column_stack(
            [
                [np.nan if s.age_years is None else s.age_years for s in studies],
                _one_hot([study.sex for study in studies]),
            ]
        ),
        _one_hot([study.manufacturer for study in studies]),
    ]
    return np.hstack([_standardise(group) for group in groups])


def _thumbnail_and_grain(frames: Frames) -> tuple[Float64[np.ndarray, "16"], float]:
    """The downscaled mean frame of the first channel, and its noise (see `_grain`)."""
    grey = frames[..., 0].astype(np.float32)
    mean = grey.mean(axis=0)
    height, width = (side // THUMBNAIL * THUMBNAIL for side in mean.shape)
    blocks = mean[:height, :width].reshape(THUMBNAIL, height // THUMBNAIL, THUMBNAIL, -1)
    return blocks.mean(axis=(1, 3)).ravel().astype(np.float64), _grain(grey)


def _grain(grey: np.ndarray) -> float:
    """Median absolute second difference along the rows where the image is not plain air."""
    bend = np.abs(grey[:, :, 2:] - 2 * grey[:, :, 1:-1] + grey[:, :, :-2])
    inside = bend[grey[:, :, 1:-1] > 0]
    return float(np.median(inside)) if inside.size else 0.0


def _one_hot(values: Sequence[str | None]) -> Float64[np.ndarray, "studies kinds"]:
    kinds = sorted({value for value in values if value})
    return np.array(
        [[float(v == kind) if v else np.nan for kind in kinds] for v in values]
    ).reshape(len(values), len(kinds))


def _standardise(
    group: Float64[np.ndarray, "studies numbers"],
) -> Float64[np.ndarray, "studies numbers"]:
    """Columns with mean 0, whose variances sum to 1 over the group; NaN becomes the mean."""
    known = ~np.isnan(group)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, group, 0).sum(axis=0) / count
    centred = np.where(known, group - mean, 0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1) / np.sqrt(max(1, group.shape[1])))


def nearest_contradictions(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    appearance: Float64[np.ndarray, "volumes numbers"],
    num: int,
) -> Int64[np.ndarray, "volumes num"]:
    """For each volume the ``num`` nearest ones that contradict its report, padded with −1.

    A volume contradicts a report when it is of another patient who lacks a finding that the report
    states or, if the report states none, has one. Nearest means: first by the number of labels that
    differ, then by the Euclidean distance of `appearances`. Volumes of one patient have equal
    numbers in ``patients``.
    """
    pattern = encode_patterns(labels)
    kinds, kind = np.unique(pattern, return_inverse=True)
    volumes = np.argsort(kind, kind="stable")
    by_kind = np.split(volumes, np.flatnonzero(np.diff(kind[volumes])) + 1)
    nearest, at_once = np.full((len(labels), num), -1), -(-_DISTANCES_AT_ONCE // len(labels))
    for own, members in zip(kinds.tolist(), by_kind, strict=True):
        for at in range(0, len(members), at_once):
            some = members[at : at + at_once]
            found = np.zeros(len(some), np.int64)
            for shell in _shells(own, kinds):
                candidates = np.concatenate([by_kind[other] for other in shell])
                apart = cdist(appearance[some], appearance[candidates])
                apart[patients[some][:, None] == patients[candidates][None]] = np.inf
                _append_nearest(nearest, some, found, candidates, apart)
                if (found == num).all():
                    break
    return nearest


def _shells(own: int, kinds: Int64[np.ndarray, "kinds"]) -> Iterator[Int64[np.ndarray, "some"]]:
    """Indices of the contradicting label patterns at each Hamming distance, nearest first."""
    contradicts = (own & ~kinds) != 0 if own else kinds != 0
    distance = np.where(contradicts, np.bitwise_count(own ^ kinds), 0)
    for step in np.unique(distance[contradicts]):
        yield np.flatnonzero(distance == step)


def _append_nearest(
    nearest: Int64[np.ndarray, "volumes num"],
    members: Int64[np.ndarray, "members"],
    found: Int64[np.ndarray, "members"],
    candidates: Int64[np.ndarray, "candidates"],
    apart: Float64[np.ndarray, "members candidates"],
) -> None:
    """Appends candidates to each member's row after its ``found`` ones; ties by row number."""
    num = min(nearest.shape[1], len(candidates))
    first = np.sort(np.argpartition(apart, num - 1, axis=1)[:, :num], axis=1)
    order = np.take_along_axis(
        first, np.argsort(np.take_along_axis(apart, first, 1), axis=1, kind="stable"), 1
    )
    for row, member in enumerate(members):
        usable = candidates[order[row][np.isfinite(apart[row, order[row]])]]
        usable = usable[: nearest.shape[1] - found[row]]
        nearest[member, found[row] : found[row] + len(usable)] = usable
        found[row] += len(usable)


def hard_negatives(
    names: Sequence[str],
    labels: UInt8[np.ndarray, "volumes labels"],
    nearest: Int64[np.ndarray, "volumes num"],
    seed: int,
) -> Iterator[PairRow]:
    """Draws each study's partner for the first epoch uniformly from its alternatives.

    ``nearest`` comes from `nearest_contradictions` and has at least one in each row.
    """
    for study, alternatives in enumerate(nearest):
        found = alternatives[alternatives >= 0].tolist()
        others = tuple(names[index] for index in found)
        name, chosen = names[study], int(_draws(seed, 0, names[study]).integers(len(others)))
        labelled = {names[index]: tuple(labels[index].tolist()) for index in (study, found[chosen])}
        yield _negative(name, others[chosen], others, labelled)


def refresh_hard(
    pairs: Sequence[PairRow],
    gaps: Sequence[GapRow],
    labels: Mapping[str, Labels],
    seed: int,
    epoch: int,
) -> list[PairRow]:
    """Redraws the hard negatives of an epoch, preferring those the model does not yet tell apart.

    The expected gap of an alternative is the gap measured with it; else the mean over its disputed
    findings of the gaps measured on pairs that dispute them; else the mean of all. Alternative a is
    drawn with probability ∝ exp(−gap_a / s), s being the standard deviation of the measured gaps.
    Without gaps, or where all are equal, the draw is uniform.

    It is a pure function, and the order of rows and gaps does not matter.

    Args:
        pairs: Rows of any epoch; those without alternatives are returned unchanged.
        gaps: Measured in the epoch before; studies may be missing.
        labels: By volume name, of all volumes that ``pairs`` names.
        seed: Of the draws.
        epoch: Number of the epoch.
    """
    measured = {(row.study, row.volume): row.gap for row in gaps}
    values = np.array([measured[key] for key in sorted(measured)])
    spread = float(values.std()) if len(values) else 0.0
    mean = float(values.mean()) if len(values) else 0.0
    by_finding = _mean_gap_by_finding(measured, labels)

    def expect(study: str, other: str) -> float:
        findings = _differing(study, other, labels)
        return measured.get(
            (study, other), float(np.mean([by_finding.get(f, mean) for f in findings]))
        )

    rows = []
    for row in pairs:
        if row.alternatives is None:
            rows.append(row)
            continue
        expected = np.array([expect(row.study, other) for other in row.alternatives])
        weights = np.exp((expected.min() - expected) / spread) if spread else np.ones(len(expected))
        drawn = _draws(seed, epoch, row.study).choice(len(expected), p=weights / weights.sum())
        rows.append(_negative(row.study, row.alternatives[int(drawn)], row.alternatives, labels))
    return rows


def _mean_gap_by_finding(
    measured: Mapping[tuple[str, str], float], labels: Mapping[str, Labels]
) -> dict[str, float]:
    gaps: dict[str, list[float]] = defaultdict(list)
    for (study, volume), gap in sorted(measured.items()):
        for finding in _differing(study, volume, labels):
            gaps[finding].append(gap)
    return {finding: float(np.mean(values)) for finding, values in gaps.items()}


def _negative(
    study: str, volume: str, alternatives: tuple[str, ...], labels: Mapping[str, Labels]
) -> PairRow:
    disputed = _differing(study, volume, labels)
    return PairRow(
        study=study,
        role="negative",
        volume=volume,
        disputed=disputed,
        label_distance=len(disputed),
        alternatives=alternatives,
    )


def _differing(study: str, volume: str, labels: Mapping[str, Labels]) -> tuple[str, ...]:
    return disputed_findings(labels[study], labels[volume])


def _draws(seed: int, epoch: int, study: str) -> np.random.Generator:
    """A random generator of its own for each study and epoch."""
    digest = hashlib.sha256(study.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])
