"""Which pair comes when: decided before training, the same for any number of processes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Dataset

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import GapRow, read_rows, write_rows
from ctscribe.learn.pairs.collate import PairBatch, collate_pairs
from ctscribe.learn.pairs.dataset import Pair, PairDataset
from ctscribe.learn.pairs.hard import refresh_hard

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

    Where items change, ``renewed`` gives those of an epoch, counted from 0; as many each.
    ``couples`` are numbers of items that stay side by side, the first of them at an even place.
    """

    def __init__(
        self,
        items: Items[Item_co],
        epochs: int,
        seed: int,
        renewed: Callable[[int], Items[Item_co]] | None = None,
        couples: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._items = items
        self._renewed = renewed
        self._order = np.concatenate(
            [_shuffled(len(items), epoch, seed, couples) for epoch in range(epochs)]
        )

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Item_co:
        items = self._renewed(number // len(self._items)) if self._renewed else self._items
        return items[int(self._order[number])]


def _shuffled(
    num_items: int, epoch: int, seed: int, couples: Sequence[tuple[int, int]]
) -> Int64[np.ndarray, "items"]:
    """The order of an epoch; who is in no couple is put beside another one who is in none."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(num_items)
    if not couples:
        return order
    alone = order[~np.isin(order, couples)]
    alone, last = np.split(alone, [len(alone) // 2 * 2])
    units = np.concatenate([couples, alone.reshape(-1, 2)])
    together = rng.permutation(units).ravel()
    # one that is left over ends an epoch or begins the next: both take one even number of places
    return np.concatenate([last, together] if epoch % 2 else [together, last])


@final
class Carried(Dataset[Item_co | CtscribeError]):
    """Items, or the error met in making one: a data worker's own would come back as another."""

    def __init__(self, items: Items[Item_co]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item_co | CtscribeError:
        try:
            return self._items[number]
        except CtscribeError as error:
            return error


def collate_carried(
    items: Sequence[Pair | CtscribeError], pad_id: int, *, sharing: bool = False
) -> PairBatch | CtscribeError:
    """`collate_pairs`, or the first error among the pairs, for the training step to raise."""
    pairs = [item for item in items if not isinstance(item, CtscribeError)]
    if len(pairs) == len(items):
        return collate_pairs(pairs, pad_id, sharing=sharing)
    return next(item for item in items if isinstance(item, CtscribeError))


@final
class HardPairs:
    """The pairs of every epoch, and the gaps they follow from.

    An epoch's negatives follow from the gaps of the one before, without those of its last one or
    two updates: the first pairs of the new epoch are fetched while these are still at work. So
    the draw is the same for any number of processes and after any interruption.

    ``pairs_per_update`` are those of all processes together; ``folder`` holds ``epoch-<n>.jsonl``,
    the gaps of epoch n; gaps after ``step`` updates, which the checkpoint to continue from has not
    done, are dropped.
    """

    def __init__(
        self,
        first: PairDataset,
        seed: int,
        pairs_per_update: int,
        folder: Path,
        step: int,
    ) -> None:
        self._first, self._labels, self._seed = first, first.labels(), seed
        self._pairs_per_update, self._folder = pairs_per_update, folder
        self._gaps = self._read()[: step * pairs_per_update]
        self._epochs: dict[int, PairDataset] = {0: first}

    def epoch(self, number: int) -> PairDataset:
        """The pairs of an epoch, counted from 0; the first call must come when it begins."""
        if number not in self._epochs:
            start, size = number * len(self._first), self._pairs_per_update
            complete = (start // size - 1) * size
            known = self._gaps[start - len(self._first) : max(0, complete)]
            rows = refresh_hard(self._first.rows(), known, self._labels, self._seed, number)
            self._epochs = {number: self._first.with_rows(rows)}
        return self._epochs[number]

    def learn(self, gaps: Sequence[GapRow]) -> None:
        """Takes in an update's gaps, of all processes."""
        self._gaps += gaps

    def save(self) -> None:
        """Writes all gaps so far; to be called before a checkpoint is marked complete."""
        size = len(self._first)
        for start in range(0, len(self._gaps), size):
            write_rows(self._path(start // size), self._gaps[start : start + size])

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch + 1}.jsonl"

    def _read(self) -> list[GapRow]:
        rows: list[GapRow] = []
        while self._path(len(rows) // len(self._first)).exists():
            found = read_rows(self._path(len(rows) // len(self._first)), GapRow)
            rows += found
            if len(found) < len(self._first):
                break
        return rows
