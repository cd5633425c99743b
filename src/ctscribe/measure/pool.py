"""Chooses a training report for each patient without using the patient's own reports.

The results equal those of a search over all other reports for each patient, which takes quadratic
time. Here counts over all reports are made once, and for each patient the own part is subtracted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt8
from scipy.sparse import csr_matrix

from ctscribe.learn.pairs.heter import encode_patterns
from ctscribe.measure.language import number_words
from ctscribe.measure.scans import ScanReport

Positions = Int64[np.ndarray, "_"]
"""Positions of reports in a list, ascending."""
_NOBODY: Positions = np.empty(0, np.int64)
_AT_ONCE = 256
"""Medoids computed at once, which limits the memory."""
_TRIED_FIRST = 64
_ABOVE_ROUNDING = 1 + 1e-9


@final
@dataclass(frozen=True)
class Pool:
    """Reports to choose from, counted once, so that many choices among them are cheap.

    Attributes:
        reports: Ordered by scan.
        of_patient: Patient → positions of the patient's reports.
        patterns: Labels of each report; see `encode_patterns`.
        words: Sparse 0/1 matrix [reports, items]. The k-th occurrence of a word is an item of its
            own, so that clipped word counts are set intersections.
        texts: A number per report, equal for equal texts.
    """

    reports: tuple[ScanReport, ...]
    of_patient: Mapping[str | None, Positions]
    patterns: Int64[np.ndarray, "reports"]
    words: Any
    texts: Int32[np.ndarray, "reports"]

    @classmethod
    def of(cls, reports: Sequence[ScanReport]) -> "Pool":
        """Counts the words of at least one report."""
        ordered = sorted(reports, key=lambda report: report.scan_id)
        names, number = np.unique([report.patient_id for report in ordered], return_inverse=True)
        return cls(
            tuple(ordered),
            dict(zip(names.tolist(), _grouped(number), strict=True)),
            _patterns(ordered),
            _items([report.text for report in ordered]),
            number_words([report.text] for report in ordered)[0],
        )

    def medoids(self, left_out: Sequence[str | None]) -> list[ScanReport]:
        """For each patient the medoid of all other patients' reports.

        That is the report with the highest pooled unigram F1 as the answer to all others; of equals
        the first by scan name. None leaves nobody out.
        """
        everyone = np.arange(len(self.reports))
        found = self._medoids(everyone, {name: self._own(name) for name in left_out})
        return [self.reports[found[name]] for name in left_out]

    def normal_reports(self, left_out: Sequence[str | None]) -> list[ScanReport]:
        """For each patient the commonest report of others among those with the fewest findings.

        Of equally common ones it is the medoid.
        """
        levels = [
            _Level(each, self.texts[each])
            for each in _grouped(np.bitwise_count(self.patterns))
            if len(each)
        ]
        groups: dict[tuple[int, ...], tuple[Positions, dict[str | None, Positions]]] = {}
        for name in dict.fromkeys(left_out):
            own = self._own(name)
            number = next(n for n, level in enumerate(levels) if not level.is_of(own))
            key, left = levels[number].commonest(own)
            if (number, *key) not in groups:
                groups[number, *key] = levels[number].having(*key), {}
            groups[number, *key][1][name] = left
        found: dict[str | None, int] = {}
        for among, lefts in groups.values():
            found |= self._medoids(among, lefts)
        return [self.reports[found[name]] for name in left_out]

    def draw(
        self, references: Sequence[ScanReport], rng: np.random.Generator, *, by_labels: bool
    ) -> list[ScanReport]:
        """Draws uniformly, for each reference, a report of another patient.

        With ``by_labels`` only among those whose labels differ least from the reference's.
        """
        kinds, kind = np.unique(self.patterns, return_inverse=True)
        of_kind, everyone = _grouped(kind), np.arange(len(self.reports))
        drawn = []
        for reference, pattern in zip(references, _patterns(references), strict=True):
            own = self._own(reference.patient_id)
            distance = np.bitwise_count(kinds ^ pattern)
            shells = _shells(distance, of_kind) if by_labels else iter((everyone,))
            drawn.append(self.reports[_draw_other(rng, shells, own)])
        return drawn

    def _own(self, patient_id: str | None) -> Positions:
        return self.of_patient.get(patient_id, _NOBODY)

    def _medoids(
        self, among: Positions, left_out: Mapping[str | None, Positions]
    ) -> dict[str | None, int]:
        """For each name the medoid of those ``among`` that are not left out for it."""
        seeker = _Medoids(self.words[among], self.texts[among])
        distinct = {each.tobytes(): _places(each, among) for each in left_out.values()}
        found = dict(zip(distinct, seeker.without([*distinct.values()]), strict=True))
        return {name: int(among[found[each.tobytes()]]) for name, each in left_out.items()}


def _draw_other(rng: np.random.Generator, shells: Iterator[Positions], own: Positions) -> int:
    """Draws from the first shell that is not all the patient's own."""
    for members in shells:
        taken = _places(own, members)
        if len(taken) < len(members):
            rank = int(rng.integers(len(members) - len(taken)))
            for place in taken.tolist():
                rank += place <= rank  # skips the own, which stand in order
            return int(members[rank])
    raise AssertionError("somebody else has a report")


def _shells(
    distance: UInt8[np.ndarray, "kinds"], of_kind: Sequence[Positions]
) -> Iterator[Positions]:
    """The reports at each distance, the nearest first."""
    for step in range(int(distance.max()) + 1):
        members = [of_kind[kind] for kind in np.flatnonzero(distance == step).tolist()]
        if members:
            yield members[0] if len(members) == 1 else np.sort(np.concatenate(members))


def _places(some: Positions, among: Positions) -> Positions:
    """Where those of ``some`` that are ``among`` others stand there."""
    places: Positions = np.searchsorted(among, some)
    found: Positions = places[among.take(places, mode="clip") == some]
    return found


def _grouped(numbers: Integer[np.ndarray, "reports"]) -> list[Positions]:
    """The places of each number from 0 to the highest."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers))[:-1])


def _patterns(reports: Sequence[ScanReport]) -> Int64[np.ndarray, "reports"]:
    return encode_patterns(np.array([report.labels for report in reports], np.uint8))


def _items(texts: Sequence[str]) -> csr_matrix:
    tokens, lengths = number_words(text.split() for text in texts)
    ones, report = np.ones(len(tokens), np.int64), np.repeat(np.arange(len(texts)), lengths)
    counts = csr_matrix((ones, (report, tokens)), (len(texts), int(tokens.max(initial=0)) + 1))
    times = counts.data
    most = counts.max(axis=0).toarray().ravel()
    before = np.cumsum(times) - times
    first = (np.cumsum(most) - most)[counts.indices]
    columns = np.repeat(first - before, times) + np.arange(times.sum())
    starts = np.cumsum([0, *lengths])
    return csr_matrix((ones, columns, starts), (len(texts), max(1, int(most.sum()))))


@final
class _Level:
    """Reports with equally many findings, by how common their texts are."""

    def __init__(self, reports: Positions, texts: Int32[np.ndarray, "reports"]) -> None:
        self._reports = reports
        self._text = np.unique(texts, return_inverse=True)[1]
        self._of_text = [reports[places] for places in _grouped(self._text)]
        self._count = np.bincount(self._text)
        self._num_texts = Counter(self._count.tolist())

    def is_of(self, own: Positions) -> bool:
        """Whether all are one patient's own."""
        return len(_places(own, self._reports)) == len(self._reports)

    def commonest(self, own: Positions) -> tuple[tuple[int, ...], Positions]:
        """Which reports are the commonest of others: a key for `having`, and what is left out."""
        lost = Counter(self._text[_places(own, self._reports)].tolist())
        count = {text: int(self._count[text]) for text in lost}
        most = max(
            [*(self._num_texts - Counter(count.values())), *(count[t] - lost[t] for t in lost)]
        )
        still = tuple(sorted(text for text in lost if count[text] - lost[text] == most))
        left = [_NOBODY]
        for text in lost:
            same = self._of_text[text]
            if text in still:
                left.append(same[_places(own, same)])
            elif count[text] == most:
                left.append(same)
        return (most, *still), np.sort(np.concatenate(left))

    def having(self, count: int, *texts: int) -> Positions:
        """The reports whose text is there so often, and those with one of these texts."""
        chosen: Positions = self._reports[
            (self._count[self._text] == count) | np.isin(self._text, texts)
        ]
        return chosen


@final
class _Medoids:
    """Finds the medoid of reports without some of them, for many such sets of some.

    The pooled overlap of a report with the others is a sum over its items of how many reports
    hold the item. It can only fall when reports are left out, and the number of words by which it
    is divided falls by no more than their share. So only the texts whose score, raised by that
    share, reaches the best one need to be looked at.
    """

    def __init__(self, words: Any, texts: Int32[np.ndarray, "reports"]) -> None:  # noqa: ANN401
        _, first, text = np.unique(texts, return_index=True, return_inverse=True)
        self._words, self._lengths = words, np.diff(words.indptr).astype(np.int64)
        self._of_text, self._text_sizes = _grouped(text), np.bincount(text)
        self._is_text = csr_matrix((np.ones(len(text), np.int64), (np.arange(len(text)), text)))
        self._text_words, self._text_lengths = words[first], self._lengths[first]
        self._overlap = self._text_words @ np.asarray(words.sum(axis=0)).ravel()
        size = len(text) * self._text_lengths + self._lengths.sum()
        self._whole = self._overlap / np.maximum(1, size)
        self._order = np.argsort(-self._whole, kind="stable")

    def without(self, lefts: Sequence[Positions]) -> list[int]:
        """The medoid without each of ``lefts``; of equals the first."""
        chunks = [lefts[at : at + _AT_ONCE] for at in range(0, len(lefts), _AT_ONCE)]
        return [place for chunk in chunks for place in self._without(chunk)]

    def _without(self, lefts: Sequence[Positions]) -> list[int]:
        starts, columns = np.cumsum([0, *map(len, lefts)]), np.concatenate(lefts)
        ones, shape = np.ones(len(columns), np.int64), (len(lefts), len(self._lengths))
        left = csr_matrix((ones, columns, starts), shape)
        words, texts = left @ self._words, left @ self._is_text
        num = len(self._lengths) - np.diff(left.indptr).astype(np.int64)
        total = self._lengths.sum() - left @ self._lengths
        share = np.minimum(num / len(self._lengths), total / max(1, self._lengths.sum()))
        found, pending, tried = np.zeros(len(lefts), np.int64), np.arange(len(lefts)), _TRIED_FIRST
        while len(pending):
            top = self._order[:tried]
            shared = (words[pending] @ self._text_words[top].T).toarray()
            size = num[pending, None] * self._text_lengths[top] + total[pending, None]
            score = (self._overlap[top] - shared) / np.maximum(1, size)
            score[texts[pending][:, top].toarray() == self._text_sizes[top]] = -1
            best = score.max(axis=1)
            rest = self._whole[self._order[tried]] if tried < len(self._order) else -1
            done = best * share[pending] > rest * _ABOVE_ROUNDING
            for row in np.flatnonzero(done):
                found[pending[row]] = self._first(top[score[row] == best[row]], lefts[pending[row]])
            pending, tried = pending[~done], 8 * tried
        return found.tolist()

    def _first(self, texts: Int64[np.ndarray, "texts"], left: Positions) -> int:
        """The first report with one of these texts that is not left out."""
        gone = set(left.tolist())
        return min(
            next(
                (int(place) for place in self._of_text[text] if place not in gone),
                len(self._lengths),
            )
            for text in texts
        )
