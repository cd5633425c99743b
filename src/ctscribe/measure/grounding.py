"""Scores of grounding, that is localisation: Dice, hit rate and instance F1, with intervals.

In: boxes or masks of findings, predicted and true. Out: scores with intervals by patient.

As in ReXGroundingCT (arXiv:2507.22030) the unit is one finding of one volume, which may have
several instances. Dice is computed over all its voxels. A finding is hit when its Dice is at least
`HIT_DICE`. Instances are connected components, matched one to one with a Dice of at least
`HIT_DICE`. The benchmark's code was not available, so both limits are ours; they are in each
signature, and ``touch_rate`` is the hit rate with any overlap.

A true finding that is not predicted scores 0. A predicted one that is not true has no Dice; its
components are false instances, and it counts in ``false_findings``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.data.prepared import Prepared, stem
from ctscribe.measure.clinical import ratio
from ctscribe.measure.intervals import NUMBER, RATE, Jackknife, with_interval
from ctscribe.measure.places import Shown, read_places, read_sentence_places
from ctscribe.measure.predictions import ct_rate_parts
from ctscribe.scan.regions import Grid, Region, dice, draw, grid_around, match_pieces

HIT_DICE = 0.1
"""Smallest Dice of a hit, and of two matching instances."""

GROUNDING = {
    "dice": "mean over findings of the reference of the Dice of all their voxels",
    "hit_rate": f"share of findings of the reference with a Dice of {HIT_DICE:g} or more",
    "touch_rate": "share of findings of the reference of which a voxel at least is met",
    "instance_f1": (
        f"2TP/(2TP+FP+FN) over connected pieces, paired one to one at {HIT_DICE:g} or more of Dice"
    ),
    "instance_precision": "TP/(TP+FP) over the same pieces",
    "instance_recall": "TP/(TP+FN) over the same pieces",
    "false_findings": "findings pointed at which the reference has not, per volume",
}
"""Metric → definition."""


@final
@dataclass(frozen=True)
class Grounded:
    """The comparison of one finding in one volume."""

    name: str
    is_true: bool
    """Whether the reference has it."""
    dice: float
    touched: bool
    pairs: int
    """Matched instances."""
    true_pieces: int
    said_pieces: int


def ground(
    predicted: Path,
    reference: Path,
    prepared: Prepared | None,
    *,
    allow_outside: bool = False,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Scores predicted against true places of findings, in every volume of the reference.

    Args:
        predicted: Anything that `read_places` reads, or masks of the reference's sentences.
        reference: Anything that `read_places` reads.
        prepared: The studies of a run's evidence, with their patients. Without, patients are taken
            from names in CT-RATE's form, else each volume counts as a patient of its own.
        allow_outside: As for `list_masks`.
        progress: Called with (volumes done, all volumes).

    Returns:
        ``n``, ``scores`` (the metrics of `GROUNDING`), ``per_finding`` rows (none where sentences
        are compared), ``missing`` volumes without predictions, and ``use``.

    Raises:
        CtscribeError: ``E_PREDICTION`` when no predicted volume is in the reference, and as
            `read_places`.
    """
    both = read_sentence_places(predicted, reference)
    said, true = both or (
        read_places(path, prepared, allow_outside=allow_outside) for path in (predicted, reference)
    )
    if not true.keys() & said.keys():
        raise CtscribeError(
            "E_PREDICTION",
            f"{predicted} must point at findings of volumes in {reference}, but names "
            f"{len(said)} others",
        )
    compared: dict[str, list[Grounded]] = {}
    for number, name in enumerate(sorted(true)):
        progress(number, len(true))
        there = true[name](None)
        scan = _scan_grid(there)
        compared[name] = compare_places(said[name](scan) if name in said else {}, there, scan)
    progress(len(true), len(true))
    return summarise(compared, _patients(compared, prepared), by_finding=both is None) | {
        "missing": [name for name in compared if name not in said],
        "passed_over": len(said.keys() - true.keys()),
        "use": RESEARCH_USE,
    }


def _scan_grid(shown: Shown) -> Grid | None:
    """The voxel grid of the masks; None where there are only boxes."""
    masks = (region for regions in shown.values() for region in regions)
    return next(
        (Grid(each.mask.shape, each.affine) for each in masks if each.mask is not None), None
    )


def compare_places(said: Shown, true: Shown, scan: Grid | None) -> list[Grounded]:
    """Compares one volume's findings on the scan's voxel grid, or on 1 mm voxels if unknown."""
    everything = [each for shown in (true, said) for regions in shown.values() for each in regions]
    if not everything:
        return []
    grid = scan or grid_around(everything)
    return [
        _compare(name, said.get(name, ()), true.get(name, ()), grid) for name in {**true, **said}
    ]


def _compare(name: str, said: Sequence[Region], true: Sequence[Region], grid: Grid) -> Grounded:
    drawn = draw(said, grid), draw(true, grid)
    outer = ndimage.find_objects((drawn[0] | drawn[1]).view(np.uint8))
    there, here = (each[outer[0]] if outer else each[:1, :1, :1] for each in drawn)
    pairs, pieces, true_pieces = match_pieces(there, here, HIT_DICE)
    return Grounded(
        name=name,
        is_true=bool(true),
        dice=dice(there, here),
        touched=bool((there & here).any()),
        pairs=pairs,
        # a prediction outside the grid counts as one false instance
        said_pieces=max(pieces, 1) if said else 0,
        true_pieces=true_pieces,
    )


def _patients(volumes: Mapping[str, object], prepared: Prepared | None) -> list[str]:
    told = {} if prepared is None else prepared.by_name
    known = {stem(name): study.patient_id for name, study in told.items()}
    parts = {name: ct_rate_parts(name) for name in volumes}
    return [known.get(name, part.patient_id if part else name) for name, part in parts.items()]


def summarise(
    compared: Mapping[str, Sequence[Grounded]],
    patients: Sequence[str],
    *,
    by_finding: bool,
) -> dict[str, Any]:
    """Scores over all findings, and of each finding, with intervals over patients.

    Args:
        compared: Volume → its findings.
        patients: Of each volume.
        by_finding: Whether to score each finding too.
    """
    jackknife = Jackknife.of(patients)
    every = [each for findings in compared.values() for each in findings]
    counts = {
        "volumes": len(compared),
        "patients": len(set(patients)),
        "findings": sum(each.is_true for each in every),
    }
    about = f"volumes:{counts['volumes']}|findings:{counts['findings']}"
    names = sorted({each.name for each in every if each.is_true}) if by_finding else []

    def scores(name: str | None) -> dict[str, dict[str, Any]]:
        rows = [_sums(findings, name) for findings in compared.values()]
        point, without = (_scores(sums) for sums in jackknife.sums(np.stack(rows)))
        return {
            metric: with_interval(
                *(point[metric], without[metric], NUMBER if metric == "false_findings" else RATE),
                jackknife.count_where(np.isfinite(_scores(np.stack(rows))[metric])),
            )
            | {"signature": f"{metric}|{definition}|{about}"}
            for metric, definition in GROUNDING.items()
        }

    return {
        "n": counts,
        "scores": scores(None),
        "per_finding": [
            {
                "finding": name,
                "findings": sum(each.is_true and each.name == name for each in every),
                **scores(name),
            }
            for name in names
        ],
    }


def _sums(findings: Sequence[Grounded], name: str | None) -> Float64[np.ndarray, "9"]:
    """Sufficient statistics of one volume, for one finding or, with None, for all."""
    chosen = [each for each in findings if name in (None, each.name)]
    true = [each for each in chosen if each.is_true]
    counts = [
        sum(each.dice for each in true),
        sum(each.dice >= HIT_DICE for each in true),
        sum(each.touched for each in true),
        len(true),
        sum(each.pairs for each in chosen),
        sum(each.said_pieces for each in chosen),
        sum(each.true_pieces for each in chosen),
        sum(not each.is_true and each.said_pieces > 0 for each in chosen),
        1,
    ]
    return np.array(counts, dtype=np.float64)


def _scores(totals: Float64[np.ndarray, "rows 9"]) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The metrics of `GROUNDING`, NaN where there is nothing to find, or nothing was said."""
    dices, hits, touched, findings, pairs, said, true, false, volumes = totals.T
    return {
        "dice": ratio(dices, findings),
        "hit_rate": ratio(hits, findings),
        "touch_rate": ratio(touched, findings),
        "instance_f1": ratio(2 * pairs, said + true),
        "instance_precision": ratio(pairs, said),
        "instance_recall": ratio(pairs, true),
        "false_findings": ratio(false, volumes),
    }
