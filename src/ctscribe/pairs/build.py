"""``pairs.jsonl``: each study's positive, then its negative."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ctscribe.config import PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.pairs.negatives import draw_partners, noise_seeds
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import PairRow, StudyRow, read_rows, write_rows


def build_training_pairs(prepared_dir: Path, out_dir: Path, config: PairsConfig) -> list[PairRow]:
    """Writes ``pairs.jsonl`` for the training split; partners are training patients too.

    Raises:
        CtscribeError: ``E_MISSING`` without ``studies.jsonl``, ``E_EMPTY_SPLIT`` when no study
            is left to train on, ``E_LABELS`` or ``E_NO_NEGATIVE`` (heter).
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    training = studies_of(studies, "train", config.validation_fraction)
    if not training:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the training split must have studies, but none of the {len(studies)} in "
            f"{prepared_dir} belongs to it; prepare more patients",
        )
    pairs = build_pairs(training, config.strategy, config.min_label_distance, config.seed)
    write_rows(out_dir / "pairs.jsonl", pairs)
    return pairs


def build_pairs(
    studies: Sequence[StudyRow],
    strategy: Literal["origin", "gauss", "heter"],
    min_label_distance: int,
    seed: int,
) -> list[PairRow]:
    """Gives each study its rows, in the studies' order; the draws do not depend on that order.

    Args:
        studies: Those to train on; heter partners come from among them.
        strategy: origin: positives only; gauss: noise of the positive's size; heter: a volume
            of another patient whose labels differ.
        min_label_distance: Labels that must differ (heter).
        seed: Of partners and noise.

    Raises:
        CtscribeError: ``E_LABELS`` naming a study without labels, ``E_NO_NEGATIVE`` (heter).
    """
    if strategy == "origin":
        return [_positive(study) for study in studies]
    if strategy == "gauss":
        seeds = noise_seeds([study.volume_name for study in studies], seed)
        negatives = [
            PairRow(study=study.volume_name, role="negative", volume=None, noise_seed=noise)
            for study, noise in zip(studies, seeds, strict=True)
        ]
    else:
        negatives = _heter_negatives(studies, min_label_distance, seed)
    return [
        row
        for study, negative in zip(studies, negatives, strict=True)
        for row in (_positive(study), negative)
    ]


def patient_numbers(studies: Sequence[StudyRow]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Numbers that are equal for the studies of one patient."""
    names = [study.patient_id for study in studies]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _positive(study: StudyRow) -> PairRow:
    return PairRow(study=study.volume_name, role="positive", volume=study.volume_name)


def _heter_negatives(
    studies: Sequence[StudyRow], min_label_distance: int, seed: int
) -> list[PairRow]:
    ordered = sorted(studies, key=lambda study: study.volume_name)
    labels = []
    for study in ordered:
        if study.labels is None:
            raise CtscribeError(
                "E_LABELS",
                f"every study must have labels for the strategy heter, but {study.volume_name} "
                "has none; add its label row, or use the strategy gauss",
            )
        labels.append(study.labels)
    partners = draw_partners(
        np.array(labels, np.uint8), patient_numbers(ordered), min_label_distance, seed
    )
    columns = (partners.index, partners.distance, partners.relaxed_by)
    drawn = {
        study.volume_name: PairRow(
            study=study.volume_name,
            role="negative",
            volume=ordered[index].volume_name,
            label_distance=distance,
            relaxed_by=relaxed_by,
        )
        for study, index, distance, relaxed_by in zip(
            ordered, *(column.tolist() for column in columns), strict=True
        )
    }
    return [drawn[study.volume_name] for study in studies]
