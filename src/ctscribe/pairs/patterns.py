"""Labels as bit patterns, and a table of how many volumes lie how far from every pattern.

A volume's labels are one of at most 2^18 patterns. How many volumes lie at a Hamming distance of
at least r from a pattern is counted for all patterns at once, bit by bit; a rank among those
volumes then leads, bit by bit, to one of them. Time and memory do not grow with the number of
volumes squared.
"""

from typing import final

import numpy as np
from jaxtyping import Int32, Int64, UInt8

_CHUNK = 1 << 20


def encode_patterns(labels: UInt8[np.ndarray, "volumes labels"]) -> Int64[np.ndarray, "volumes"]:
    """Each row of 0 and 1 as a number whose highest bit is the first label."""
    pattern = np.zeros(len(labels), np.int64)
    for label in range(labels.shape[1]):
        pattern = 2 * pattern + labels[:, label]
    return pattern


@final
class PatternTree:
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
        counts: Int64[np.ndarray, "queries"] = self._levels[0][0, pattern, distance].astype(
            np.int64
        )
        return counts

    def find(
        self,
        pattern: Int64[np.ndarray, "queries"],
        distance: Int64[np.ndarray, "queries"],
        rank: Int64[np.ndarray, "queries"],
    ) -> Int64[np.ndarray, "queries"]:
        """The volume with this rank among those `count` counts; a bijection for each query."""
        pieces = [
            self._find(
                pattern[at : at + _CHUNK], distance[at : at + _CHUNK], rank[at : at + _CHUNK]
            )
            for at in range(0, len(pattern), _CHUNK)
        ]
        return np.concatenate(pieces)

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
        volumes: Int64[np.ndarray, "queries"] = self._order[self._start[prefix] + rank]
        return volumes
