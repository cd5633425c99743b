"""Heterogeneous negatives: draws for each volume another patient's whose labels differ enough.

The 18 labels are a bit pattern. For all patterns at once, dynamic programming over the bits counts
the volumes at a Hamming distance of at least r. A random rank among those is then resolved to a
volume bit by bit. So neither time nor memory grows with the square of the number of volumes.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Labels
from ctscribe.text.findings import FINDINGS

_CHUNK = 1 << 20


@final
@dataclass(frozen=True)
class Partners:
    """One partner per volume."""

    index: Int64[np.ndarray, "volumes"]
    """Row number of the partner."""
    distance: Int64[np.ndarray, "volumes"]
    """Number of labels in which it differs."""
    relaxed_by: Int64[np.ndarray, "volumes"]
    """By how much the required distance had to be lowered."""


def draw_partners(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
    seed: int,
) -> Partners:
    """Draws for every volume another patient's whose labels differ in at least ``min_distance``.

    The draw is uniform over the eligible volumes. For a volume without any, the distance is lowered
    step by step until there is one. Volumes of one patient have equal numbers in ``patients``.

    Raises:
        CtscribeError: ``E_NO_NEGATIVE`` when no other patient's labels differ at all.
    """
    pattern, least = encode_patterns(labels), min(min_distance, labels.shape[1])
    rng = np.random.default_rng(seed)
    index, required = _draw(pattern, labels.shape[1], patients, least, rng)
    if (index < 0).any():
        raise no_partner(int((index < 0).sum()), len(labels))
    distance = np.bitwise_count(pattern ^ pattern[index]).astype(np.int64)
    return Partners(index, distance, min_distance - required)


def draw_mutual_partners(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
    seed: int,
) -> Partners:
    """As `draw_partners`, but matched: two volumes are each other's partner, as far as possible.

    In each round the unmatched volumes draw partners among themselves and are matched greedily in a
    random order. When no two of them differ enough, the required distance is lowered for all that
    are left. Volumes that remain at the end keep their partner of `draw_partners`.

    Raises:
        CtscribeError: As `draw_partners`.
    """
    alone = draw_partners(labels, patients, min_distance, seed)
    index, relaxed_by = alone.index.copy(), alone.relaxed_by.copy()
    pattern, rng = encode_patterns(labels), np.random.default_rng([seed, 1])
    free, distance = np.arange(len(labels)), min(min_distance, labels.shape[1])
    while distance and len(free):
        drawn, required = _draw(pattern[free], labels.shape[1], patients[free], distance, rng)
        couples = _disjoint(np.where(required == distance, drawn, -1), rng)
        if not len(couples):
            distance = int(required[drawn >= 0].max(initial=0))
        one, other = free[couples].T
        index[one], index[other] = other, one
        relaxed_by[free[couples]] = min_distance - distance
        free = np.delete(free, couples)
    apart = np.bitwise_count(pattern ^ pattern[index]).astype(np.int64)
    return Partners(index, apart, relaxed_by)


def _draw(
    pattern: Int64[np.ndarray, "volumes"],
    num_labels: int,
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, "volumes"], Int64[np.ndarray, "volumes"]]:
    """A partner for each volume, −1 where nobody differs, and the distance that was required."""
    tree = _PatternTree(pattern, num_labels)
    required, num_eligible = _relax(tree, pattern, patients, min_distance)
    index = np.full(len(pattern), -1, np.int64)
    pending = np.flatnonzero(num_eligible)
    while pending.size:
        # rejection sampling: volumes of the same patient are drawn again
        ranks = rng.integers(0, tree.count(pattern[pending], required[pending]))
        index[pending] = tree.find(pattern[pending], required[pending], ranks)
        pending = pending[patients[index[pending]] == patients[pending]]
    return index, required


def _disjoint(
    drawn: Int64[np.ndarray, "volumes"], rng: np.random.Generator
) -> Int64[np.ndarray, "couples 2"]:
    """Greedy matching: couples of a volume and its draw, each volume once; −1 is no draw."""
    taken, couples = np.zeros(len(drawn), bool), []
    for one in rng.permutation(np.flatnonzero(drawn >= 0)).tolist():
        other = int(drawn[one])
        if not (taken[one] or taken[other]):
            taken[[one, other]] = True
            couples.append((one, other))
    return np.array(couples, np.int64).reshape(-1, 2)


def no_partner(num_without: int, num_volumes: int) -> CtscribeError:
    """The error for studies without an eligible partner."""
    return CtscribeError(
        "E_NO_NEGATIVE",
        "every study needs another patient whose labels differ, but "
        f"{num_without} of {num_volumes} studies have none",
    )


def draw_strangers(
    patients: Int64[np.ndarray, "volumes"], seed: int
) -> Int64[np.ndarray, "volumes"]:
    """Draws for every volume one of another patient, uniformly and regardless of labels.

    Raises:
        CtscribeError: ``E_NO_NEGATIVE`` when there is only one patient.
    """
    order = np.argsort(patients, kind="stable")
    _, group, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise CtscribeError(
            "E_NO_NEGATIVE", f"there must be two patients or more, but there are {len(sizes)}"
        )
    start = (np.cumsum(sizes) - sizes)[group]
    size = sizes[group]
    rank = np.random.default_rng(seed).integers(0, len(patients) - size)
    # skips the own patient's volumes, which are contiguous in this order
    return order[rank + np.where(rank >= start, size, 0)].astype(np.int64)


def disputed_findings(own: Labels, shown: Labels) -> tuple[str, ...]:
    """The findings in which two patients' labels differ, in order."""
    return tuple(f for f, a, b in zip(FINDINGS, own, shown, strict=True) if a != b)


def encode_patterns(labels: UInt8[np.ndarray, "volumes labels"]) -> Int64[np.ndarray, "volumes"]:
    """Each row of labels as an integer, the first label being the highest bit."""
    pattern = np.zeros(len(labels), np.int64)
    for label in range(labels.shape[1]):
        pattern = 2 * pattern + labels[:, label]
    return pattern


@final
class _PatternTree:
    """Counts the volumes at least r bits from a pattern, and finds the one with a given rank.

    Level j is a table [prefixes, suffixes, distances]: the number of volumes that start with the
    given j bits and differ from the query's remaining bits (the suffix) in at least r.
    """

    def __init__(self, pattern: Int64[np.ndarray, "volumes"], num_labels: int) -> None:
        self._num_labels = num_labels
        self._order = np.argsort(pattern, kind="stable")
        counts = np.bincount(pattern, minlength=1 << num_labels)
        self._start = np.cumsum(counts) - counts
        self._levels: list[Int32[np.ndarray, "prefixes suffixes distances"]] = [
            counts.astype(np.int32).reshape(-1, 1, 1)
        ]
        for _ in range(num_labels):
            self._levels.insert(0, self._parent(self._levels[0]))

    @staticmethod
    def _parent(
        level: Int32[np.ndarray, "prefixes suffixes distances"],
    ) -> Int32[np.ndarray, "half_prefixes twice_suffixes one_more_distances"]:
        prefixes, suffixes, distances = level.shape
        children = level.reshape(prefixes // 2, 2, suffixes, distances)
        parent = np.zeros((prefixes // 2, 2, suffixes, distances + 1), np.int32)
        parent[..., :-1] = children  # same bit: the remaining distance is unchanged
        differing = children[:, ::-1]
        parent[..., 0] += differing[..., 0]
        parent[..., 1:] += differing
        return parent.reshape(prefixes // 2, 2 * suffixes, distances + 1)

    def count(
        self, pattern: Int64[np.ndarray, "queries"], distance: Int64[np.ndarray, "queries"]
    ) -> Int64[np.ndarray, "queries"]:
        """Volumes at least ``distance`` from each pattern."""
        return np.asarray(self._levels[0][0, pattern, distance], np.int64)

    def find(
        self,
        pattern: Int64[np.ndarray, "queries"],
        distance: Int64[np.ndarray, "queries"],
        rank: Int64[np.ndarray, "queries"],
    ) -> Int64[np.ndarray, "queries"]:
        """The volume with this rank among those that `count` counts."""
        chunks = [slice(at, at + _CHUNK) for at in range(0, len(pattern), _CHUNK)]
        return np.concatenate([self._find(pattern[c], distance[c], rank[c]) for c in chunks])

    def _find(
        self,
        pattern: Int64[np.ndarray, "queries"],
        distance: Int64[np.ndarray, "queries"],
        rank: Int64[np.ndarray, "queries"],
    ) -> Int64[np.ndarray, "queries"]:
        prefix = np.zeros_like(pattern)
        for depth in range(1, self._num_labels + 1):
            level = self._levels[depth]
            remaining = self._num_labels - depth
            bit = (pattern >> remaining) & 1
            suffix = pattern & ((1 << remaining) - 1)
            same = 2 * prefix + bit
            # no volume differs in more bits than remain
            reachable = distance <= remaining
            num_same = np.where(reachable, level[same, suffix, np.minimum(distance, remaining)], 0)
            differs = rank >= num_same
            rank = np.where(differs, rank - num_same, rank)
            prefix = np.where(differs, same ^ 1, same)
            distance = np.where(differs, np.maximum(distance - 1, 0), distance)
        return np.asarray(self._order[self._start[prefix] + rank])


def _relax(
    tree: _PatternTree,
    pattern: Int64[np.ndarray, "volumes"],
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
) -> tuple[Int64[np.ndarray, "volumes"], Int64[np.ndarray, "volumes"]]:
    """The largest distance in 1…``min_distance`` with eligible partners, and their number."""
    required = np.full(len(pattern), min_distance, np.int64)
    eligible = np.zeros(len(pattern), np.int64)
    own = _OwnPatient(pattern, patients)
    pending = np.arange(len(pattern))
    for distance in range(min_distance, 0, -1):
        required[pending] = distance
        found = tree.count(pattern[pending], required[pending]) - own.count(distance)[pending]
        eligible[pending] = found
        pending = pending[found == 0]
        if not pending.size:
            break
    return required, eligible


@final
class _OwnPatient:
    """Counts, per volume, the volumes of the same patient at a distance or beyond."""

    def __init__(
        self, pattern: Int64[np.ndarray, "volumes"], patients: Int64[np.ndarray, "volumes"]
    ) -> None:
        order = np.argsort(patients, kind="stable")
        self._num_volumes = len(patients)
        ends, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        # one patient's volumes are contiguous, so each pair of them occurs at exactly one offset
        for offset in range(1, int(np.unique(patients, return_counts=True)[1].max(initial=0))):
            first, second = order[:-offset], order[offset:]
            own = patients[first] == patients[second]
            distance = np.bitwise_count(pattern[first[own]] ^ pattern[second[own]])
            ends += [first[own], second[own]]
            distances += [distance, distance]
        self._ends, self._distances = np.concatenate(ends), np.concatenate(distances)

    def count(self, distance: int) -> Int64[np.ndarray, "volumes"]:
        chosen = self._ends[self._distances >= distance]
        return np.bincount(chosen, minlength=self._num_volumes).astype(np.int64)
