"""Which pair comes when: decided before training, the same for any number of processes."""

from typing import final

import numpy as np
from torch.utils.data import Dataset

from ctscribe.pairs.dataset import Pair, PairDataset


@final
class EpochsInOrder(Dataset[Pair]):
    """All epochs one behind the other, each a permutation of the pairs of its own.

    Item n is a pure function of (n, seed), so the next pair after an interruption needs no
    state, and skipping to it reads nothing.

    Args:
        pairs: One epoch.
        epochs: How many.
        seed: Of the permutations.
    """

    def __init__(self, pairs: PairDataset, epochs: int, seed: int) -> None:
        self._pairs = pairs
        shuffled = [
            np.random.default_rng([seed, epoch]).permutation(len(pairs)) for epoch in range(epochs)
        ]
        self._order = np.concatenate(shuffled)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Pair:
        return self._pairs[int(self._order[number])]
