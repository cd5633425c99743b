"""``pairs.jsonl``: each study's positive, then its negative."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from ctscribe.base.errors import CtscribeError
from ctscribe.base.locks import one_writer_of
from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import PairRow, StudyRow, write_rows
from ctscribe.base.types import Labels
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.hard import appearances, hard_negatives, nearest_contradictions
from ctscribe.learn.pairs.heter import disputed_findings, draw_partners, no_partner

Negatives = Mapping[str, PairRow]
"""By study; origin has none."""


def build_training_pairs(prepared: Prepared, out_dir: Path, config: PairsConfig) -> list[PairRow]:
    """Writes ``pairs.jsonl`` for the training split; partners are training patients too.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when no study is left to train on, ``E_LABELS``,
            ``E_NO_NEGATIVE`` or ``E_BUSY``.
    """
    training = prepared.split("train")
    if not training:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the training split must have studies, but none of the {len(prepared.studies)} in "
            f"{prepared.folder} belongs to it",
        )
    with one_writer_of(out_dir / "pairs.jsonl"):
        pairs = build_pairs(training, config, prepared)
        write_rows(out_dir / "pairs.jsonl", pairs)
        return pairs


def build_pairs(
    studies: Sequence[StudyRow], config: PairsConfig, prepared: Prepared | None = None
) -> list[PairRow]:
    """Gives each study its rows, in the studies' order; the draws do not depend on that order.

    Partners come from among ``studies``. The strategy hard reads their frames from ``prepared``.

    Raises:
        CtscribeError: ``E_LABELS`` naming a study without labels, or ``E_NO_NEGATIVE``, where
            partners are wanted (heter, hard).
    """
    negatives: Negatives = {}
    # by name, so that no draw depends on how the studies are listed
    in_order = sorted(studies, key=lambda study: study.volume_name)
    if config.strategy == "gauss":
        negatives = _gauss(studies, config.seed)
    elif config.strategy == "heter":
        negatives = _heter(in_order, config)
    elif config.strategy == "hard":
        assert prepared is not None  # who looks alike is told from frames
        negatives = _hard(in_order, prepared, config)
    rows = []
    for study in studies:
        name = study.volume_name
        rows.append(PairRow(study=name, role="positive", volume=name))
        if name in negatives:
            rows.append(negatives[name])
    return rows


def _gauss(studies: Sequence[StudyRow], seed: int) -> Negatives:
    names = [study.volume_name for study in studies]
    return {
        name: PairRow(study=name, role="negative", volume=None, noise_seed=noise)
        for name, noise in zip(names, noise_seeds(names, seed), strict=True)
    }


def _heter(studies: Sequence[StudyRow], config: PairsConfig) -> Negatives:
    patients, distance = patient_numbers(studies), config.min_label_distance
    partners = draw_partners(_labels(studies), patients, distance, config.seed)
    return {
        study.volume_name: PairRow(
            study=study.volume_name,
            role="negative",
            volume=studies[index].volume_name,
            disputed=disputed_findings(_known(study), _known(studies[index])),
            label_distance=int(distance),
            relaxed_by=int(relaxed_by),
        )
        for study, index, distance, relaxed_by in zip(
            studies, partners.index, partners.distance, partners.relaxed_by, strict=True
        )
    }


def _hard(studies: Sequence[StudyRow], prepared: Prepared, config: PairsConfig) -> Negatives:
    labels, appearance = _labels(studies), appearances(prepared, studies)
    patients = patient_numbers(studies)
    nearest = nearest_contradictions(labels, patients, appearance, config.num_alternatives)
    if (nearest[:, 0] < 0).any():
        raise no_partner(int((nearest[:, 0] < 0).sum()), len(studies))
    names = [study.volume_name for study in studies]
    rows = hard_negatives(names, labels, nearest, config.seed)
    return {row.study: row for row in rows}


def noise_seeds(names: Sequence[str], seed: int) -> list[int]:
    """Seed of each study's noise volume; depends on nothing but its name and ``seed``."""
    return [
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
        for name in names
    ]


def patient_numbers(studies: Sequence[StudyRow]) -> Int64[np.ndarray, "studies"]:
    """Numbers that are equal for the studies of one patient."""
    names = [study.patient_id for study in studies]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _labels(studies: Sequence[StudyRow]) -> UInt8[np.ndarray, "studies labels"]:
    return np.array([_known(study) for study in studies], np.uint8)


def _known(study: StudyRow) -> Labels:
    if study.labels is None:
        raise CtscribeError(
            "E_LABELS",
            f"every study must have labels for partners to differ in, but {study.volume_name} "
            "has none",
        )
    return study.labels
