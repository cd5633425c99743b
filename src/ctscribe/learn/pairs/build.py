"""Builds ``pairs.jsonl``: for each training study a positive row, then its negative."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from ctscribe.base.errors import CtscribeError
from ctscribe.base.locks import one_writer_of
from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import PairRow, write_rows
from ctscribe.base.types import Labels
from ctscribe.data.prepared import AnyStudy, Prepared
from ctscribe.learn.pairs.hard import appearances, hard_negatives, nearest_contradictions
from ctscribe.learn.pairs.heter import (
    disputed_findings,
    draw_mutual_partners,
    draw_partners,
    no_partner,
)


def build_training_pairs(prepared: Prepared, out_dir: Path, config: PairsConfig) -> int:
    """Writes ``pairs.jsonl`` for the training split; returns the number of rows.

    Partners are from the training split too. Reports and rows are streamed, not held in memory.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when no study is left to train on, ``E_NO_REPORT`` when
            one has no report, ``E_LABELS``, ``E_NO_NEGATIVE`` or ``E_BUSY``.
    """
    training = [study for study in prepared.outlines if study.split == "train"]
    prepared.require_reports(training or prepared.outlines)
    if not training:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the training split must have studies, but none of the {len(prepared.outlines)} in "
            f"{prepared.folder} belongs to it",
        )
    with one_writer_of(out_dir / "pairs.jsonl"):
        return write_rows(out_dir / "pairs.jsonl", each_pair(training, config, prepared))


def build_pairs(
    studies: Sequence[AnyStudy], config: PairsConfig, prepared: Prepared | None = None
) -> list[PairRow]:
    """The rows of `each_pair`."""
    return [*each_pair(studies, config, prepared)]


def each_pair(
    studies: Sequence[AnyStudy], config: PairsConfig, prepared: Prepared | None = None
) -> Iterator[PairRow]:
    """Yields the rows of each study, in the studies' order, on which the draws do not depend.

    Partners are among ``studies``. The strategy hard reads their frames from ``prepared``.

    Raises:
        CtscribeError: ``E_LABELS`` naming a study without labels, or ``E_NO_NEGATIVE``, for the
            strategies with partners (heter, hard).
    """
    negatives: Iterator[PairRow | None] = repeat(None)
    if config.strategy == "gauss":
        negatives = _gauss(studies, config.seed)
    elif config.strategy == "heter":
        negatives = _heter(studies, config)
    elif config.strategy == "hard":
        assert prepared is not None  # frames decide which scans look alike
        negatives = _hard(studies, prepared, config)
    for study, negative in zip(studies, negatives, strict=False):
        name = study.volume_name
        yield PairRow(study=name, role="positive", volume=name)
        if negative is not None:
            yield negative


def _gauss(studies: Sequence[AnyStudy], seed: int) -> Iterator[PairRow]:
    for study in studies:
        (noise,) = noise_seeds([study.volume_name], seed)
        yield PairRow(study=study.volume_name, role="negative", volume=None, noise_seed=noise)


def _heter(studies: Sequence[AnyStudy], config: PairsConfig) -> Iterator[PairRow]:
    order, min_distance = _by_name(studies), config.min_label_distance
    labels, patients = _labels(studies)[order], patient_numbers(studies)[order]
    draw = draw_mutual_partners if config.mutual else draw_partners
    partners = draw(labels, patients, min_distance, config.seed)
    place = np.argsort(order)
    for study, drawn in zip(studies, place.tolist(), strict=True):
        other = studies[order[partners.index[drawn]]]
        yield PairRow(
            study=study.volume_name,
            role="negative",
            volume=other.volume_name,
            disputed=disputed_findings(_known(study), _known(other)),
            label_distance=int(partners.distance[drawn]),
            relaxed_by=int(partners.relaxed_by[drawn]),
        )


def _hard(
    studies: Sequence[AnyStudy], prepared: Prepared, config: PairsConfig
) -> Iterator[PairRow]:
    order, labels, patients = _by_name(studies), _labels(studies), patient_numbers(studies)
    appearance = appearances(prepared, [studies[index] for index in order.tolist()])
    nearest = nearest_contradictions(
        labels[order], patients[order], appearance, config.num_alternatives
    )
    if (nearest[:, 0] < 0).any():
        raise no_partner(int((nearest[:, 0] < 0).sum()), len(studies))
    nearest[order] = np.where(nearest < 0, nearest, order[nearest])
    names = [study.volume_name for study in studies]
    return hard_negatives(names, labels, nearest, config.seed)


def _by_name(studies: Sequence[AnyStudy]) -> Int64[np.ndarray, "studies"]:
    """The order of the studies by name, so that draws do not depend on the order given."""
    names = [study.volume_name for study in studies]
    return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)


def noise_seeds(names: Sequence[str], seed: int) -> list[int]:
    """Seed of each study's noise volume, a function of its name and ``seed`` alone."""
    return [
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
        for name in names
    ]


def patient_numbers(studies: Sequence[AnyStudy]) -> Int64[np.ndarray, "studies"]:
    """A number per study, equal for studies of the same patient."""
    names = [study.patient_id for study in studies]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _labels(studies: Sequence[AnyStudy]) -> UInt8[np.ndarray, "studies labels"]:
    return np.array([_known(study) for study in studies], np.uint8)


def _known(study: AnyStudy) -> Labels:
    if study.labels is None:
        raise CtscribeError(
            "E_LABELS",
            f"every study must have labels for partners to differ in, but {study.volume_name} "
            "has none",
        )
    return study.labels
