"""N-gram counts of many reports at once, and the longest common subsequence of two."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

ORDERS = 4
"""Longest n-gram."""


@final
@dataclass(frozen=True)
class NgramCounts:
    """Counts per order n = 1..4 of what was written and of the truth, over shared columns."""

    written: tuple[Any, ...]
    """Four sparse matrices [distinct written reports, n-grams]."""
    truth: tuple[Any, ...]
    """Four sparse matrices [scans, n-grams]."""
    written_row: Int64[np.ndarray, "scans"]
    """Row of `written` that belongs to each scan."""
    written_length: Int64[np.ndarray, "scans"]
    """Words written for each scan."""
    truth_length: Int64[np.ndarray, "scans"]
    """Words of each scan's reference."""

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Per order: what was written for each scan, and its reference, row by row."""
        for written, truth in zip(self.written, self.truth, strict=True):
            yield written[self.written_row], truth

    def matches(self) -> list[Float64[np.ndarray, "scans"]]:
        """Per order: n-grams of each scan's reference that were written, clipped to its count."""
        return [
            np.asarray(written.minimum(truth).sum(axis=1), dtype=np.float64).ravel()
            for written, truth in self.pairs()
        ]


def count_ngrams(written: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> NgramCounts:
    """Counts the n-grams of tokenised reports; equal written reports are counted once."""
    distinct: dict[tuple[str, ...], int] = {}
    rows = np.array(
        [distinct.setdefault(tuple(tokens), len(distinct)) for tokens in written], dtype=np.int64
    )
    reports = [*distinct, *truth]
    lengths = np.array([len(tokens) for tokens in reports], dtype=np.int64)
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    numbers = map(vocabulary.__getitem__, chain.from_iterable(reports))
    tokens = np.fromiter(numbers, dtype=np.int64, count=int(lengths.sum()))
    matrices = _count_matrices(tokens, lengths, len(vocabulary))
    split = len(distinct)
    return NgramCounts(
        written=tuple(matrix[:split] for matrix in matrices),
        truth=tuple(matrix[split:] for matrix in matrices),
        written_row=rows,
        written_length=lengths[:split][rows],
        truth_length=lengths[split:],
    )


def _count_matrices(
    tokens: Int64[np.ndarray, "tokens"], lengths: Int64[np.ndarray, "reports"], num_words: int
) -> list[Any]:
    report = np.repeat(np.arange(len(lengths)), lengths)
    words_left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    ngram_at, num_ngrams, matrices = tokens.copy(), num_words, []
    for order in range(1, ORDERS + 1):
        starts = np.flatnonzero(words_left >= order)
        if order > 1:
            # An n-gram is its first n − 1 words and its last; pairs of numbers get a new number.
            joint = ngram_at[starts] * num_words + tokens[starts + order - 1]
            known, ngram_at[starts] = np.unique(joint, return_inverse=True)
            num_ngrams = len(known)
        entries = (np.ones(len(starts)), (report[starts], ngram_at[starts]))
        matrices.append(sparse.csr_matrix(entries, shape=(len(lengths), max(1, num_ngrams))))
    return matrices


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bit-parallel dynamic programming.

    One row of the classical table is one integer, and a whole row is updated by an addition
    (Crochemore et al. 2001; Hyyrö 2004).
    """
    positions: dict[str, int] = {}
    for place, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for mask in map(positions.get, second):
        if mask:
            matched = row & mask
            row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
