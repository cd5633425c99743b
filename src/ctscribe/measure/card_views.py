"""The views of the image-dependence card: what a model is shown instead of the scan.

Here they are defined, with their random draws; no model is needed. `card_volumes` makes them as
volumes, for any model; `card` makes most of them from a run's stored features.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from ctscribe.base.rows import StudyRow
from ctscribe.learn.pairs.build import noise_seeds

DROPPED_SHARE = 0.5
"""Of the slice pairs, or of the slices of a volume; see `draw_dropped`."""

VIEWS = {
    "real": "the scan itself",
    "noise": "standard normal noise in units of 1000 HU, clipped to ±1",
    "blank": "air",
    "other_patient": "the scan of another patient of the split, drawn once",
    "other_on_own_grid": "that other scan with the shape, spacing and place of the scan itself",
    "moved": "its own voxels in a drawn order, on its own grid",
    "texture": "the chest of a healthy phantom under its own fine noise, on its own grid",
    "own_on_other_grid": "the scan itself with the other scan's shape, spacing and place",
    "shuffled": "its slice pairs in a drawn order in which none keeps its place",
    "dropped": f"its slice pairs, {100 * DROPPED_SHARE:.0f} % of them drawn and replaced by air",
}
"""View → what is shown; the reference is always that of the scan itself."""

REMOVED = ("noise", "blank", "other_patient", "other_on_own_grid", "moved", "texture")
"""Views without the patient: a model that looks must write worse reports for each of them.

They keep what can be recognised without looking at anatomy: grid and field of view in all but
`other_patient`, the histogram in `moved`, the scanner's noise in `texture`.
"""

KEPT = "own_on_other_grid"
"""The view with the whole patient and nothing else of the file: reports should be the same."""

GATED = (*REMOVED, KEPT)
"""Views that the verdict rests on. A model that looks need not depend on order or every slice."""

FROM_VOLUMES = ("other_on_own_grid", "moved", "texture", KEPT)
"""Views that cannot be made from a run's stored features."""


def scans_with_strangers(
    studies: Sequence[StudyRow],
) -> tuple[list[StudyRow], dict[str, StudyRow]]:
    """The first volume of each scan, and by its name the other patient's volume shown instead.

    The other patients are those of `validation_pairs`.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients.
    """
    from ctscribe.learn.train.validation import validation_pairs  # with torch; scoring does without

    by_name = {study.volume_name: study for study in studies}
    rows = validation_pairs(studies)
    strangers = {row.study: by_name[str(row.volume)] for row in rows[1::2]}
    return [by_name[name] for name in strangers], strangers


def seed_of(study: StudyRow) -> int:
    """Seed of all draws for a study, a function of its name alone."""
    return noise_seeds([study.volume_name], seed=0)[0]


def draw_order(num_slices: int, seed: int) -> Int64[np.ndarray, "slices"]:
    """A random cyclic permutation, so that no slice keeps its place (unless there is only one)."""
    circle = np.random.default_rng(seed).permutation(num_slices)
    order = np.empty(num_slices, dtype=np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def draw_dropped(num_slices: int, share: float, seed: int) -> Bool[np.ndarray, "slices"]:
    """A mask of randomly dropped slices: ``share`` of them, rounded up, but never all."""
    number = min(num_slices - 1, int(np.ceil(share * num_slices)))
    gone = np.zeros(num_slices, dtype=bool)
    gone[np.random.default_rng(seed).permutation(num_slices)[:number]] = True
    return gone
