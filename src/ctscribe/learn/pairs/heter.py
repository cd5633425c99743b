"""Another patient is shown instead, one whose labels differ: drawn by pattern, not by volume.

A volume's labels are one of at most 2^18 patterns. How many volumes lie at a Hamming distance of
at least r from a pattern is counted for all patterns at once, bit by bit; a rank among those
volumes then leads, bit by bit, to one of them. Time and memory do not grow with the number of
volumes squared.
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
    """Row of the volume that is shown instead."""
    distance: Int64[np.ndarray, "volumes"]
    """Labels in which it differs."""
    relaxed_by: Int64[np.ndarray, "volumes"]
    """Steps by which the required distance had to be lowered."""


def draw_partners(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
    seed: int,
) -> Partners:
    """Draws for every volume another patient's whose labels differ in at least ``min_distance``.

    Uniform over the eligible volumes. Where there is none the distance is lowered by one, again
    and again, for that volume alone. Volumes of one patient have equal numbers in ``patients``.

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
    """As `draw_partners`, but two volumes that are drawn together are each other's partner.

    Those without a partner draw among themselves, and come together in a random order, until none
    of them differs enough from any other. Then the distance is lowered by one for all that are
    left. Whoever is left at last has the partner that `draw_partners` gives.

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
        # A volume of the same patient is drawn again, which keeps the others equally likely.
        ranks = rng.integers(0, tree.count(pattern[pending], required[pending]))
        index[pending] = tree.find(pattern[pending], required[pending], ranks)
        pending = pending[patients[index[pending]] == patients[pending]]
    return index, required


def _disjoint(
    drawn: Int64[np.ndarray, "volumes"], rng: np.random.Generator
) -> Int64[np.ndarray, "couples 2"]:
    """Volumes with what they drew, as long as neither is taken; −1 drew nobody."""
    taken, couples = np.zeros(len(drawn), bool), []
    for one in rng.permutation(np.flatnonzero(drawn >= 0)).tolist():
        other = int(drawn[one])
        if not (taken[one] or taken[other]):
            taken[[one, other]] = True
            couples.append((one, other))
    return np.array(couples, np.int64).reshape(-1, 2)


def no_partner(num_without: int, num_volumes: int) -> CtscribeError:
    """The error for studies whose labels no other patient's differ from as asked."""
    return CtscribeError(
        "E_NO_NEGATIVE",
        "every study needs another patient whose labels differ, but "
        f"{num_without} of {num_volumes} studies have none",
    )


def draw_strangers(
    patients: Int64[np.ndarray, "volumes"], seed: int
) -> Int64[np.ndarray, "volumes"]:
    """Draws for every volume one of another patient, uniformly, whatever its labels.

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
    # Skip over the own patient's volumes, which stand together in this order.
    return order[rank + np.where(rank >= start, size, 0)].astype(np.int64)


def disputed_findings(own: Labels, shown: Labels) -> tuple[str, ...]:
    """The findings in which two patients' labels differ, in order."""
    return tuple(f for f, a, b in zip(FINDINGS, own, shown, strict=True) if a != b)


def encode_patterns(labels: UInt8[np.ndarray, "volumes labels"]) -> Int64[np.ndarray, "volumes"]:
    """Each row of 0 and 1 as a number whose highest bit is the first label."""
    pattern = np.zeros(len(labels), np.int64)
    for label in range(labels.shape[1]):
        pattern = 2 * pattern + labels[:, label]
    return pattern


@final
class _PatternTree:
    """How many volumes lie at least r bits from a pattern, and which one has a given rank.

    Level j's table holds, for each prefix of j bits of the sought pattern, each suffix of the
    remaining bits of the given one, and each distance r still wanted, the number of volumes.
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
        parent[..., :-1] = children  # the same bit: all the distance is still wanted
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
        """The volume with this rank among those `count` counts; a bijection for each query."""
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
            # More distance than bits remain: nothing lies that way.
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
    """Largest distance ≤ ``min_distance``, ≥ 1, at which each volume has a partner; how many."""
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
    """Counts, per volume, the same patient's volumes at a distance or beyond."""

    def __init__(
        self, pattern: Int64[np.ndarray, "volumes"], patients: Int64[np.ndarray, "volumes"]
    ) -> None:
        order = np.argsort(patients, kind="stable")
        self._num_volumes = len(patients)
        ends, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        # one patient's volumes stand together: each pair of them is met at one offset
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
