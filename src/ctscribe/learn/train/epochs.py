"""The order of training pairs, fixed before training and the same for any number of processes."""

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
    """A map-style data set."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, number: int, /) -> Item_co:
        """Item by number."""


@final
class EpochsInOrder(Dataset[Item_co]):
    """All epochs concatenated into one data set, each in a random order of its own.

    Item n depends only on n and the seed. So a resumed run needs no sampler state, and skipping to
    its place reads nothing.

    Args:
        items: The items of one epoch.
        epochs: Number of epochs.
        seed: Of the orders.
        items_of_epoch: Gives the items of an epoch, counted from 0, where they change from epoch to
            epoch; their number must not.
        couples: Pairs of item numbers that must stay side by side, the first at an even place, so
            that a batch of even size never separates them.
    """

    def __init__(
        self,
        items: Items[Item_co],
        epochs: int,
        seed: int,
        items_of_epoch: Callable[[int], Items[Item_co]] | None = None,
        couples: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._items = items
        self._items_of_epoch = items_of_epoch
        self._order = np.concatenate(
            [_shuffled(len(items), epoch, seed, couples) for epoch in range(epochs)]
        )

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Item_co:
        items = self._items
        if self._items_of_epoch is not None:
            items = self._items_of_epoch(number // len(items))
        return items[int(self._order[number])]


def _shuffled(
    num_items: int, epoch: int, seed: int, couples: Sequence[tuple[int, int]]
) -> Int64[np.ndarray, "items"]:
    """A random order of the items; those in no couple are coupled with each other at random."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(num_items)
    if not couples:
        return order
    alone = order[~np.isin(order, couples)]
    alone, last = np.split(alone, [len(alone) // 2 * 2])
    coupled = rng.permutation(np.concatenate([couples, alone.reshape(-1, 2)])).ravel()
    # of an odd number of items one is left over: it ends an even epoch and begins an odd one, so
    # that couples start at even places in both
    return np.concatenate([last, coupled] if epoch % 2 else [coupled, last])


@final
class ErrorsAsItems(Dataset[Item_co | CtscribeError]):
    """A data set that returns its errors as items: raised in a worker they would change type."""

    def __init__(self, items: Items[Item_co]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item_co | CtscribeError:
        try:
            return self._items[number]
        except CtscribeError as error:
            return error


def collate_or_error(
    items: Sequence[Pair | CtscribeError], pad_id: int, *, sharing: bool = False
) -> PairBatch | CtscribeError:
    """`collate_pairs`, or the first error among the items, which the training step then raises."""
    pairs = [item for item in items if not isinstance(item, CtscribeError)]
    if len(pairs) == len(items):
        return collate_pairs(pairs, pad_id, sharing=sharing)
    return next(item for item in items if isinstance(item, CtscribeError))


@final
class HardPairs:
    """The pairs of each epoch, whose hard negatives are drawn from the gaps of the epoch before.

    The gaps of that epoch's last one or two updates are not used: the first pairs of the new epoch
    are already fetched while those updates run. So the draw is the same for any number of processes
    and after any interruption.

    Args:
        first: The pairs of the first epoch.
        seed: Of the draws.
        pairs_per_update: Of all processes together.
        folder: Holds ``epoch-<n>.jsonl``, the gaps of epoch n, counted from 1.
        step: Updates that the checkpoint to continue from has done; later gaps are dropped.
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
        """The pairs of an epoch, counted from 0; first called when the epoch begins."""
        if number not in self._epochs:
            start, size = number * len(self._first), self._pairs_per_update
            complete = (start // size - 1) * size
            known = self._gaps[start - len(self._first) : max(0, complete)]
            rows = refresh_hard(self._first.rows(), known, self._labels, self._seed, number)
            self._epochs = {number: self._first.with_rows(rows)}
        return self._epochs[number]

    def learn(self, gaps: Sequence[GapRow]) -> None:
        """Adds the gaps of one update, of all processes."""
        self._gaps += gaps

    def save(self) -> None:
        """Writes all gaps so far; called before a checkpoint is marked complete."""
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
