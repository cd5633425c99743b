"""Which pair comes when: decided before training, the same for any number of processes."""

from collections.abc import Callable
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
        renewed: Gives the items of an epoch, counted from 0, where they change; as many each.
    """

    def __init__(
        self,
        items: Items[Item_co],
        epochs: int,
        seed: int,
        renewed: Callable[[int], Items[Item_co]] | None = None,
    ) -> None:
        self._items = items
        self._renewed = renewed
        shuffled = [
            np.random.default_rng([seed, epoch]).permutation(len(items)) for epoch in range(epochs)
        ]
        self._order = np.concatenate(shuffled)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Item_co:
        items = self._renewed(number // len(self._items)) if self._renewed else self._items
        return items[int(self._order[number])]
