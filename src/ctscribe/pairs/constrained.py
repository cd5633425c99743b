"""Partners drawn one study after the other, under a reuse cap, a balance or a scanner match.

Volumes with the same labels and scanner form a cell; a draw looks at the cells, of which CT-RATE
has a few thousand, and then at one cell's volumes. It is exact: at a study's turn every eligible
volume is equally likely.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from ctscribe.pairs.negatives import Partners, no_partner
from ctscribe.pairs.patterns import encode_patterns

UNKNOWN_SCANNER = -1
"""Matches no scanner, not even another unknown one."""


def draw_constrained_partners(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    min_distance: int,
    seed: int,
    *,
    reuse_cap: int | None = None,
    balanced: bool = False,
    scanners: Int64[np.ndarray, "volumes"] | None = None,
) -> Partners:
    """As `negatives.draw_partners`, with wishes; studies take turns in random order.

    A wish is given up for one study alone, and only after the distance has been lowered to 1:
    first the scanner, then the direction, last the cap.

    Args:
        labels: 0 or 1.
        patients: Equal numbers for volumes of one patient.
        min_distance: Labels that must differ.
        seed: Of the turns and draws.
        reuse_cap: Most often that a volume is drawn.
        balanced: A coin says whether the partner shall have more findings or fewer.
        scanners: Equal numbers for volumes to be matched.

    Raises:
        CtscribeError: ``E_NO_NEGATIVE`` when no other patient's labels differ at all.
    """
    num_volumes, num_labels = labels.shape
    pattern = encode_patterns(labels)
    group = np.full(num_volumes, UNKNOWN_SCANNER) if scanners is None else scanners
    cells = _Cells(pattern, group, patients, reuse_cap or num_volumes)
    required_most = min(min_distance, num_labels)
    rng = np.random.default_rng(seed)
    turns, coins = rng.permutation(num_volumes), rng.integers(2, size=(num_volumes,))
    index, required = np.empty(num_volumes, np.int64), np.zeros(num_volumes, np.int64)
    for study in map(int, turns):
        for wish in cells.wishes(study, int(coins[study]) if balanced else None):
            required[study], weights = cells.weigh(study, wish, required_most)
            if required[study]:
                index[study] = cells.draw(study, wish, weights, rng)
                break
    if not required.all():
        raise no_partner(int((required == 0).sum()), num_volumes)
    distance = np.bitwise_count(pattern ^ pattern[index]).astype(np.int64)
    return Partners(index, distance, min_distance - required)


@final
@dataclass(frozen=True)
class _Wish:
    allowed: Bool[np.ndarray, "cells"]
    capped: bool
    """Whether volumes without uses left are out."""


@final
class _Cells:
    """Volumes by (labels, scanner), those with uses left in front of each cell's row."""

    def __init__(
        self,
        pattern: Int64[np.ndarray, "volumes"],
        scanner: Int64[np.ndarray, "volumes"],
        patients: Int64[np.ndarray, "volumes"],
        cap: int,
    ) -> None:
        keys, self._cell, sizes = np.unique(
            np.stack([pattern, scanner]), axis=1, return_inverse=True, return_counts=True
        )
        self._pattern, self._scanner = keys
        self._findings = np.bitwise_count(self._pattern).astype(np.int64)
        self._patients, self._cap = patients, cap
        self._row = np.argsort(self._cell, kind="stable")
        self._place = np.argsort(self._row)
        self._start = np.cumsum(sizes) - sizes
        self._sizes, self._left = sizes, sizes.copy()
        self._uses = np.zeros(len(patients), np.int64)
        by_patient = np.argsort(patients, kind="stable")
        ends = np.flatnonzero(np.diff(patients[by_patient])) + 1
        self._own = {int(patients[own[0]]): own for own in np.split(by_patient, ends)}

    def wishes(self, study: int, coin: int | None) -> Iterator[_Wish]:
        """What to ask for, the most first."""
        cell = self._cell[study]
        anything = np.ones(len(self._pattern), bool)
        directions, scanners = [anything], [anything]
        if coin is not None:
            fewer, own = self._findings < self._findings[cell], self._findings[cell]
            directions.insert(0, fewer if coin else self._findings > own)
        if self._scanner[cell] != UNKNOWN_SCANNER:
            scanners.insert(0, self._scanner == self._scanner[cell])
        for capped in (True, False):
            for direction, scanner in product(directions, scanners):
                yield _Wish(direction & scanner, capped)

    def weigh(self, study: int, wish: _Wish, most: int) -> tuple[int, Int64[np.ndarray, "cells"]]:
        """Largest distance ≤ ``most`` at which a volume is left, or 0; eligible ones by cell."""
        counts = np.where(wish.allowed, self._left if wish.capped else self._sizes, 0)
        for own in self._own[int(self._patients[study])]:
            has_uses = self._uses[own] < self._cap or not wish.capped
            if has_uses and wish.allowed[self._cell[own]]:
                counts[self._cell[own]] -= 1
        distance = np.bitwise_count(self._pattern ^ self._pattern[self._cell[study]])
        farthest = int(distance[counts > 0].max(initial=0))
        required = min(most, farthest)
        return required, np.where(distance >= required, counts, 0)

    def draw(
        self,
        study: int,
        wish: _Wish,
        weights: Int64[np.ndarray, "cells"],
        rng: np.random.Generator,
    ) -> int:
        """One of the volumes that `weigh` counted, each equally likely; counts its use."""
        ends = np.cumsum(weights)
        rank = int(rng.integers(ends[-1]))
        cell = int(np.searchsorted(ends, rank, side="right"))
        start = self._start[cell]
        num = (self._left if wish.capped else self._sizes)[cell]
        members = self._row[start : start + num]
        others = members[self._patients[members] != self._patients[study]]
        chosen = int(others[rank - (ends[cell] - weights[cell])])
        self._uses[chosen] += 1
        if self._uses[chosen] == self._cap:
            self._retire(chosen)
        return chosen

    def _retire(self, volume: int) -> None:
        """Moves a volume without uses left behind those that have some."""
        cell = self._cell[volume]
        self._left[cell] -= 1
        last = self._row[self._start[cell] + self._left[cell]]
        here, there = self._place[volume], self._place[last]
        self._row[here], self._row[there] = last, volume
        self._place[volume], self._place[last] = there, here
