"""Prepared studies → what the tower is taught with: frames, labels, and places where known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ctscribe.model.teach import Look
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import label_report
from ctscribe.reports.sections import join_report
from ctscribe.rows import StudyRow
from ctscribe.slices.boxes import boxes_in_frames
from ctscribe.slices.cache import read_frames, stem
from ctscribe.slices.where import Place


def read_looks(
    prepared_dir: Path,
    studies: Sequence[StudyRow],
    places: Mapping[str, tuple[Place, ...]],
    views: int,
) -> list[Look]:
    """Frames, labels and boxes, `views` looks a study, one after the other.

    Args:
        prepared_dir: What `prepare` wrote.
        studies: Labels that are not in them are read off their reports.
        places: Lesions of those studies whose lesions are known.
        views: Interleaved sets of slices a study's frames are dealt out to.
    """
    looks = []
    for study in studies:
        known = places.get(stem(study.volume_name), ())
        frames = np.array(read_frames(prepared_dir, study.volume_name))
        boxes = boxes_in_frames(study, [place.box_mm for place in known])
        findings = tuple(FINDINGS.index(place.finding) for place in known)
        labels = study.labels or label_report(join_report(study.findings, study.impression))
        looks += [
            Look(frames[v::views], study.slice_indices[v::views], boxes, findings, labels)
            for v in range(views)
        ]
    return looks


def keep_share(
    places: Mapping[str, tuple[Place, ...]], names: Sequence[str], share: float, seed: int
) -> dict[str, tuple[Place, ...]]:
    """Places of a share of the studies, drawn by seed; a smaller share is part of a larger one.

    Args:
        places: By volume name without its suffix.
        names: Of the studies, suffix or not.
        share: 0 to 1.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(names))
    kept = (stem(names[i]) for i in order[: round(share * len(names))])
    return {name: places[name] for name in kept if name in places}
