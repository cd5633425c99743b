"""Partners that look and read alike but contradict the report, and new ones for each epoch."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.spatial.distance import cdist

from ctscribe.pairs.patterns import encode_patterns
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import GapRow, PairRow
from ctscribe.types import Labels

Direction = Literal["any", "more", "fewer"]
_MEMBERS_AT_ONCE = 256


def nearest_contradictions(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    appearance: Float64[np.ndarray, "volumes numbers"],
    num: int,
    direction: Direction = "any",
) -> Int64[np.ndarray, "volumes num"]:
    """The volumes nearest to each that contradict its report; −1 where there are no more.

    A volume contradicts a report when it belongs to another patient who lacks a finding the
    report states, or, where the report states none, has one. Near is first by the number of
    labels that differ, then by appearance.

    Args:
        labels: 0 or 1.
        patients: Equal numbers for volumes of one patient.
        appearance: From `appearance.appearances`; Euclidean distance counts.
        num: Volumes wanted for each.
        direction: Whether only those with more findings, or with fewer, will do.
    """
    pattern = encode_patterns(labels)
    kinds, kind = np.unique(pattern, return_inverse=True)
    volumes = np.argsort(kind, kind="stable")
    by_kind = np.split(volumes, np.flatnonzero(np.diff(kind[volumes])) + 1)
    nearest = np.full((len(labels), num), -1)
    for own, members in zip(kinds.tolist(), by_kind, strict=True):
        for at in range(0, len(members), _MEMBERS_AT_ONCE):
            some = members[at : at + _MEMBERS_AT_ONCE]
            found = np.zeros(len(some), np.int64)
            for shell in _shells(own, kinds, direction):
                candidates = np.concatenate([by_kind[other] for other in shell])
                apart = cdist(appearance[some], appearance[candidates])
                apart[patients[some][:, None] == patients[candidates][None]] = np.inf
                _append_nearest(nearest, some, found, candidates, apart)
                if (found == num).all():
                    break
    return nearest


def _shells(
    own: int, kinds: Int64[np.ndarray, "kinds"], direction: Direction
) -> Iterator[Int64[np.ndarray, "some"]]:
    """Contradicting patterns by their distance, the nearest first."""
    contradicts = (own & ~kinds) != 0 if own else kinds != 0
    if direction != "any":
        more = np.bitwise_count(kinds).astype(np.int64) - own.bit_count()
        contradicts &= more > 0 if direction == "more" else more < 0
    distance = np.where(contradicts, np.bitwise_count(own ^ kinds), 0)
    for step in np.unique(distance[contradicts]):
        yield np.flatnonzero(distance == step)


def _append_nearest(
    nearest: Int64[np.ndarray, "volumes num"],
    members: Int64[np.ndarray, "members"],
    found: Int64[np.ndarray, "members"],
    candidates: Int64[np.ndarray, "candidates"],
    apart: Float64[np.ndarray, "members candidates"],
) -> None:
    """Fills each member's row behind the ``found`` it has; ties go to the lower row number."""
    num = min(nearest.shape[1], len(candidates))
    first = np.sort(np.argpartition(apart, num - 1, axis=1)[:, :num], axis=1)
    order = np.take_along_axis(
        first, np.argsort(np.take_along_axis(apart, first, 1), axis=1, kind="stable"), 1
    )
    for row, member in enumerate(members):
        usable = candidates[order[row][np.isfinite(apart[row, order[row]])]]
        usable = usable[: nearest.shape[1] - found[row]]
        nearest[member, found[row] : found[row] + len(usable)] = usable
        found[row] += len(usable)


def balanced_contradictions(
    labels: UInt8[np.ndarray, "volumes labels"],
    patients: Int64[np.ndarray, "volumes"],
    appearance: Float64[np.ndarray, "volumes numbers"],
    num: int,
) -> tuple[Int64[np.ndarray, "volumes num_or_more"], Bool[np.ndarray, "volumes"]]:
    """As `nearest_contradictions`, but half with more findings than the study, half with fewer.

    Returns:
        ``num`` volumes, one more where that is odd, −1 where there are not as many; and for which
        studies there are both kinds. The others have the ``num`` nearest as they come.
    """
    half = (num + 1) // 2
    more = nearest_contradictions(labels, patients, appearance, half, "more")
    fewer = nearest_contradictions(labels, patients, appearance, half, "fewer")
    nearest = nearest_contradictions(labels, patients, appearance, 2 * half)
    nearest[:, num:] = -1
    both = (more[:, 0] >= 0) & (fewer[:, 0] >= 0)
    return np.where(both[:, None], np.hstack([more, fewer]), nearest), both


def hard_negatives(
    names: Sequence[str],
    labels: UInt8[np.ndarray, "volumes labels"],
    nearest: Int64[np.ndarray, "volumes num"],
    seed: int,
    balanced: Bool[np.ndarray, "volumes"] | None = None,
) -> list[PairRow]:
    """Draws each study's first partner from its alternatives, each equally likely.

    Args:
        names: Of the volumes.
        labels: 0 or 1.
        nearest: From `nearest_contradictions`, one or more in each row.
        seed: Of the draws.
        balanced: For which studies a coin first says whether the partner has more findings or
            fewer, see `balanced_contradictions`; None: for none.
    """
    tuples = {name: tuple(row) for name, row in zip(names, labels.tolist(), strict=True)}
    coins = np.zeros(len(names), bool) if balanced is None else balanced
    rows = []
    for name, alternatives, tossed in zip(names, nearest, coins.tolist(), strict=True):
        others = tuple(names[index] for index in alternatives if index >= 0)
        random = _draws(seed, 0, name)
        possible = _one_side(name, others, tuples, random) if tossed else others
        chosen = possible[int(random.integers(len(possible)))]
        rows.append(_negative(name, chosen, others, tuples, balanced=tossed))
    return rows


def _one_side(
    study: str,
    alternatives: tuple[str, ...],
    labels: Mapping[str, Labels],
    random: np.random.Generator,
) -> tuple[str, ...]:
    """The alternatives with more findings than the study, or those with fewer, by a coin."""
    more = bool(random.integers(2))
    own = sum(labels[study])
    return tuple(other for other in alternatives if (sum(labels[other]) > own) == more)


def refresh_hard(
    pairs: Sequence[PairRow],
    gaps: Sequence[GapRow],
    labels: Mapping[str, Labels],
    seed: int,
    epoch: int,
) -> list[PairRow]:
    """Draws the hard negatives of an epoch anew, most from what is not yet told apart.

    An alternative's gap is the one measured with it, or else the mean of the gaps measured on
    pairs that dispute the same findings, or else the mean of all. Alternative a is drawn with
    probability ∝ exp(−gap_a / s), s the standard deviation of the measured gaps; without any,
    or where they are all equal, each is equally likely. Of a balanced row only those on the side
    that a coin has chosen, more findings or fewer, are looked at.

    A pure function: the same rows, gaps, seed and epoch give the same negatives, in any order.

    Args:
        pairs: Of any epoch; rows without alternatives are returned as they are.
        gaps: Measured in the epoch before; a study may be missing.
        labels: By volume, for every volume the pairs name.
        seed: The recipe's ``pairs.seed``.
        epoch: The one the negatives are for, from 1 after the first.
    """
    measured = {(row.study, row.volume): row.gap for row in gaps}
    values = np.array([measured[key] for key in sorted(measured)])
    spread = float(values.std()) if len(values) else 0.0
    mean = float(values.mean()) if len(values) else 0.0
    by_finding = _mean_gap_by_finding(measured, labels)

    def expect(study: str, other: str) -> float:
        findings = _differing(study, other, labels)
        return measured.get((study, other), _mean([by_finding.get(f, mean) for f in findings]))

    rows = []
    for row in pairs:
        if row.alternatives is None:
            rows.append(row)
            continue
        random, possible = _draws(seed, epoch, row.study), row.alternatives
        if row.balanced:
            possible = _one_side(row.study, possible, labels, random)
        expected = np.array([expect(row.study, other) for other in possible])
        weights = np.exp((expected.min() - expected) / spread) if spread else np.ones(len(expected))
        chosen = possible[int(random.choice(len(expected), p=weights / weights.sum()))]
        rows.append(_negative(row.study, chosen, row.alternatives, labels, balanced=row.balanced))
    return rows


def _mean_gap_by_finding(
    measured: Mapping[tuple[str, str], float], labels: Mapping[str, Labels]
) -> dict[str, float]:
    gaps: dict[str, list[float]] = defaultdict(list)
    for (study, volume), gap in sorted(measured.items()):
        for finding in _differing(study, volume, labels):
            gaps[finding].append(gap)
    return {finding: _mean(values) for finding, values in gaps.items()}


def _negative(
    study: str,
    volume: str,
    alternatives: tuple[str, ...],
    labels: Mapping[str, Labels],
    *,
    balanced: bool,
) -> PairRow:
    disputed = _differing(study, volume, labels)
    return PairRow(
        study=study,
        role="negative",
        volume=volume,
        disputed=disputed,
        label_distance=len(disputed),
        alternatives=alternatives,
        balanced=balanced,
    )


def _differing(study: str, volume: str, labels: Mapping[str, Labels]) -> tuple[str, ...]:
    return disputed_findings(labels[study], labels[volume])


def disputed_findings(own: Labels, shown: Labels) -> tuple[str, ...]:
    """The findings in which two patients' labels differ, in order."""
    return tuple(f for f, a, b in zip(FINDINGS, own, shown, strict=True) if a != b)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _draws(seed: int, epoch: int, study: str) -> np.random.Generator:
    """A stream of its own for each study and epoch, whatever the order of the rows."""
    digest = hashlib.sha256(study.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])
