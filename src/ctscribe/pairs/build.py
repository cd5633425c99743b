"""``pairs.jsonl``: each study's positive, then its negative."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Int64, UInt8

from ctscribe.config import PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.pairs.anatomy import plan_healing
from ctscribe.pairs.appearance import appearances
from ctscribe.pairs.constrained import UNKNOWN_SCANNER, draw_constrained_partners
from ctscribe.pairs.hard import (
    balanced_contradictions,
    disputed_findings,
    hard_negatives,
    nearest_contradictions,
)
from ctscribe.pairs.negatives import draw_partners, no_partner, noise_seeds
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import PairRow, StudyRow, read_rows, write_rows
from ctscribe.slices.cache import read_frames, stem
from ctscribe.slices.where import read_where
from ctscribe.types import Labels

Negatives = Mapping[str, PairRow]
"""By study; one without a negative is not in it."""


def build_training_pairs(
    prepared_dir: Path, out_dir: Path, config: PairsConfig, where: Path | None = None
) -> list[PairRow]:
    """Writes ``pairs.jsonl`` for the training split; partners are training patients too.

    Args:
        prepared_dir: What `prepare` wrote.
        out_dir: Where the rows go.
        config: The strategy and its knobs.
        where: Boxes or masks of lesions, see `where.read_where` (anatomy).

    Raises:
        CtscribeError: ``E_MISSING`` without ``studies.jsonl``, ``E_EMPTY_SPLIT`` when no study
            is left to train on, ``E_LABELS``, ``E_LESIONS``, ``E_WHERE`` or ``E_MASK``
            (anatomy), or ``E_NO_NEGATIVE``.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    training = studies_of(studies, "train", config.validation_fraction)
    if not training:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the training split must have studies, but none of the {len(studies)} in "
            f"{prepared_dir} belongs to it",
        )
    strategy = config.strategy
    if strategy == "hard":
        pairs = _put_together(training, _hard(_in_order(training), prepared_dir, config))
    elif strategy == "anatomy":
        pairs = _put_together(training, _anatomy(_in_order(training), prepared_dir, config, where))
    else:
        pairs = build_pairs(
            training,
            strategy,
            config.min_label_distance,
            config.seed,
            **_wishes(config),
        )
    write_rows(out_dir / "pairs.jsonl", pairs)
    return pairs


def build_pairs(
    studies: Sequence[StudyRow],
    strategy: Literal["origin", "gauss", "heter"],
    min_label_distance: int,
    seed: int,
    *,
    reuse_cap: int | None = None,
    balanced: bool = False,
    match_scanner: bool = False,
) -> list[PairRow]:
    """Gives each study its rows, in the studies' order; the draws do not depend on that order.

    Args:
        studies: Those to train on; heter partners come from among them.
        strategy: origin: positives only; gauss: noise of the positive's size; heter: a volume
            of another patient whose labels differ.
        min_label_distance: Labels that must differ (heter).
        seed: Of partners and noise.
        reuse_cap: See `constrained.draw_constrained_partners`, also for the next two (heter).
        balanced: More findings and fewer with equal chance.
        match_scanner: Prefer the same manufacturer.

    Raises:
        CtscribeError: ``E_LABELS`` naming a study without labels, ``E_NO_NEGATIVE`` (heter).
    """
    negatives: Negatives = {}
    if strategy == "gauss":
        negatives = _gauss(studies, seed)
    elif strategy == "heter":
        negatives = _heter(
            _in_order(studies),
            min_label_distance,
            seed,
            reuse_cap=reuse_cap,
            balanced=balanced,
            match_scanner=match_scanner,
        )
    return _put_together(studies, negatives)


def _put_together(studies: Sequence[StudyRow], negatives: Negatives) -> list[PairRow]:
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


def _heter(
    studies: Sequence[StudyRow],
    min_label_distance: int,
    seed: int,
    *,
    reuse_cap: int | None,
    balanced: bool,
    match_scanner: bool,
) -> Negatives:
    labels, patients = _labels(studies), patient_numbers(studies)
    if reuse_cap is None and not balanced and not match_scanner:
        partners = draw_partners(labels, patients, min_label_distance, seed)
    else:
        partners = draw_constrained_partners(
            labels,
            patients,
            min_label_distance,
            seed,
            reuse_cap=reuse_cap,
            balanced=balanced,
            scanners=_scanner_numbers(studies) if match_scanner else None,
        )
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


def patient_numbers(studies: Sequence[StudyRow]) -> Int64[np.ndarray, "studies"]:
    """Numbers that are equal for the studies of one patient."""
    names = [study.patient_id for study in studies]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


class _Wishes(TypedDict):
    reuse_cap: int | None
    balanced: bool
    match_scanner: bool


def _wishes(config: PairsConfig) -> _Wishes:
    return {
        "reuse_cap": config.reuse_cap,
        "balanced": config.direction == "balanced",
        "match_scanner": config.match_scanner,
    }


def _hard(studies: Sequence[StudyRow], prepared_dir: Path, config: PairsConfig) -> Negatives:
    labels = _labels(studies)
    looks = labels, patient_numbers(studies), appearances(prepared_dir, studies)
    balanced = None
    if config.direction == "balanced":
        nearest, balanced = balanced_contradictions(*looks, config.num_alternatives)
    else:
        nearest = nearest_contradictions(*looks, config.num_alternatives)
    if (nearest[:, 0] < 0).any():
        raise no_partner(int((nearest[:, 0] < 0).sum()), len(studies))
    names = [study.volume_name for study in studies]
    rows = hard_negatives(names, labels, nearest, config.seed, balanced)
    return {row.study: row for row in rows}


def _anatomy(
    studies: Sequence[StudyRow], prepared_dir: Path, config: PairsConfig, where: Path | None
) -> Negatives:
    if where is None:
        raise CtscribeError(
            "E_LESIONS",
            "the strategy anatomy must be told where lesions are, but no boxes or masks are given; "
            "pass --where, or use the strategy hard",
        )
    places = read_where(where)
    negatives: dict[str, PairRow] = {}
    for study in studies:
        name = study.volume_name
        frames = read_frames(prepared_dir, name)
        plan = plan_healing(study, places.get(stem(name), ()), frames, config.max_healed_mm)
        if plan is not None:
            negatives[name] = PairRow(
                study=name, role="negative", volume=name, disputed=plan[0], healing=plan[1]
            )
    if not negatives:
        raise CtscribeError(
            "E_LESIONS",
            f"at least one study must have a small lesion with lung around it, but none of "
            f"{len(studies)} has one in {where}; give its boxes or masks, raise "
            "pairs.max_healed_mm, or use the strategy hard",
        )
    if config.unhealed == "heter":
        others = _heter(
            studies,
            config.min_label_distance,
            config.seed,
            **_wishes(config),
        )
        return {**others, **negatives}
    return negatives


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


def _scanner_numbers(studies: Sequence[StudyRow]) -> Int64[np.ndarray, "studies"]:
    kinds = sorted({study.manufacturer for study in studies if study.manufacturer})
    return np.array(
        [kinds.index(s.manufacturer) if s.manufacturer else UNKNOWN_SCANNER for s in studies],
        np.int64,
    )


def _in_order(studies: Sequence[StudyRow]) -> list[StudyRow]:
    """By name, so that no draw depends on how the studies are listed."""
    return sorted(studies, key=lambda study: study.volume_name)
