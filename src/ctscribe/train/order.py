"""Which pair comes when: decided before training, the same for any number of processes."""

from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

Item_co = TypeVar("Item_co", covariant=True)


@runtime_checkable
class Items(Protocol[Item_co]):
    """A data set with numbered items."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, number: int, /) -> Item_co:
        """Item by number."""


@final
class EpochsInOrder(Dataset[Item_co]):
    """All epochs one behind the other, each a permutation of its own.

    Item n is a pure function of (n, seed), so the next pair after an interruption needs no
    state, and skipping to it reads nothing.

    Args:
        items: One epoch.
        epochs: How many.
        seed: Of the permutations.
    """

    def __init__(self, items: Items[Item_co], epochs: int, seed: int) -> None:
        self._items = items
        shuffled = [
            np.random.default_rng([seed, epoch]).permutation(len(items)) for epoch in range(epochs)
        ]
        self._order = np.concatenate(shuffled)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Item_co:
        return self._items[int(self._order[number])]
