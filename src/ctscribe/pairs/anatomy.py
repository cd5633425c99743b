"""Which lesions are healed in a study's own frames, and the frames that come of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, read_json, sha256_of_json
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import Healing, PairRow, StudyRow
from ctscribe.slices.boxes import boxes_in_frames
from ctscribe.slices.cache import read_frames, record_path, stem, write_frames
from ctscribe.slices.heal import heal_frames, lung_around
from ctscribe.slices.where import Place
from ctscribe.types import BoxMm, Frames

HEALABLE = (
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Consolidation",
)
"""Findings with an outline and lung around it."""
FORMAT = 1
"""Raised whenever the same recipe would give other frames."""
_MARGIN_PX = 1.5
_MOST_HARM = 0.1
_LEAST_LUNG = 0.6

FrameMasks = Bool[np.ndarray, "slices height width"]


def plan_healing(
    study: StudyRow, places: Sequence[Place], frames: Frames, max_mm: float
) -> tuple[tuple[str, ...], Healing] | None:
    """The findings that can be taken out of a study's frames, and how; None if none can.

    A finding qualifies when its report states it, when at least one frame shows it, and when every
    lesion of it that a frame shows is small and has lung around it. Of these, findings are left
    in whose removal would take with it a tenth or more of a lesion that stays.

    Args:
        study: The positive.
        places: All its lesions.
        frames: The study's.
        max_mm: Longest axial side of a lesion that is healed.
    """
    size = (frames.shape[1], frames.shape[2])
    masks = [_section(study, place.box_mm, size, 0.0) for place in places]
    shown = [n for n, mask in enumerate(masks) if mask.any()]
    chosen = {
        places[n].finding
        for n in shown
        if places[n].finding in HEALABLE and _is_stated(study, places[n].finding)
    }
    chosen -= {places[n].finding for n in shown if _axial_side_mm(places[n].box_mm) > max_mm}
    widened = {
        n: _section(study, places[n].box_mm, size, _MARGIN_PX)
        for n in shown
        if places[n].finding in chosen
    }
    chosen -= {
        places[n].finding
        for n, mask in widened.items()
        if (lung_around(frames, mask) < _LEAST_LUNG).any()
    }
    while harming := _harming({n: masks[n] for n in shown}, widened, places, chosen):
        chosen -= harming
    if not chosen:
        return None
    healed = [n for n in shown if places[n].finding in chosen]
    others = [n for n in shown if places[n].finding in HEALABLE and n not in healed]
    healing = Healing(
        boxes_mm=tuple(places[n].box_mm for n in healed),
        avoided_mm=tuple(places[n].box_mm for n in others),
    )
    return tuple(finding for finding in FINDINGS if finding in chosen), healing


def healed_study(study: StudyRow, healing: Healing) -> StudyRow:
    """The study under the name of its healed frames; nothing else about it changes."""
    digest = sha256_of_json([FORMAT, healing.model_dump(mode="json")])[:12]
    return study.model_copy(update={"volume_name": f"{stem(study.volume_name)}.healed-{digest}"})


def shown_study(studies: Mapping[str, StudyRow], row: PairRow) -> StudyRow:
    """The study whose frames a row shows; for noise the one whose size it has."""
    study = studies[row.study if row.volume is None else row.volume]
    return study if row.healing is None else healed_study(study, row.healing)


def write_healed(
    prepared_dir: Path,
    studies: Mapping[str, StudyRow],
    rows: Sequence[PairRow],
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> list[StudyRow]:
    """Makes the healed frames that ``rows`` show and that are not there yet.

    They lie beside the study's own frames in the slice cache, and are made anew when those change.

    Args:
        prepared_dir: What `prepare` wrote.
        studies: By name.
        rows: As in ``pairs.jsonl``.
        progress: Told (volumes done, all volumes).

    Returns:
        One study per healed volume, named as its frames are.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_CACHE`` or ``E_WRITE``.
    """
    healings = [(studies[row.study], row.healing) for row in rows if row.healing is not None]
    made = []
    for done, (study, healing) in enumerate(healings, 1):
        target = healed_study(study, healing)
        crc32 = read_json(record_path(prepared_dir, study.volume_name))["frames_crc32"]
        if not _is_made(prepared_dir, target.volume_name, crc32):
            frames = heal_study(study, healing, read_frames(prepared_dir, study.volume_name))
            record = {"volume_name": target.volume_name, "healed_from_crc32": crc32}
            write_frames(prepared_dir, target.volume_name, frames, record)
        made.append(target)
        progress(done, len(healings))
    return made


def heal_study(study: StudyRow, healing: Healing, frames: Frames) -> Frames:
    """A study's frames without the lesions of a recipe."""
    size = (frames.shape[1], frames.shape[2])

    def union(boxes: Sequence[BoxMm]) -> FrameMasks:
        mask = np.zeros(frames.shape[:3], dtype=bool)
        for box in boxes:
            mask |= _section(study, box, size, _MARGIN_PX)
        return mask

    return heal_frames(frames, union(healing.boxes_mm), union(healing.avoided_mm))


def _is_made(prepared_dir: Path, name: str, crc32: int) -> bool:
    try:
        record = read_json(record_path(prepared_dir, name))
        read_frames(prepared_dir, name)
    except CtscribeError:
        return False
    return bool(record.get("healed_from_crc32") == crc32)


def _is_stated(study: StudyRow, finding: str) -> bool:
    return study.labels is None or study.labels[FINDINGS.index(finding)] == 1


def _axial_side_mm(box: BoxMm) -> float:
    return max(box[1][axis] - box[0][axis] for axis in (0, 1))


def _section(
    study: StudyRow, box: BoxMm, frame_size_px: tuple[int, int], margin_px: float
) -> FrameMasks:
    """Where a box meets the frames: a rectangle with rounded corners, widened by a margin."""
    (left, right), (top, bottom), (low, high) = boxes_in_frames(study, [box])[0]
    depth = np.asarray(study.slice_indices)
    reach = 0.5 + (margin_px > 0) * 0.5  # interpolation carries a lesion into the next slice
    y, x = np.ogrid[: frame_size_px[0], : frame_size_px[1]]
    rows = _normalised(y, top, bottom, margin_px)
    columns = _normalised(x, left, right, margin_px)
    touched = (depth >= low - reach) & (depth <= high + reach)
    return np.asarray(touched[:, None, None] & (rows**4 + columns**4 <= 1))


def _normalised(pixels: np.ndarray, low: float, high: float, margin_px: float) -> np.ndarray:
    """−1 and 1 at the two ends of an interval; one of no width still covers a pixel."""
    half = (high - low) / 2 + 0.5 + margin_px
    return np.asarray((pixels - (low + high) / 2) / half)


def _harming(
    masks: Mapping[int, FrameMasks],
    widened: Mapping[int, FrameMasks],
    places: Sequence[Place],
    chosen: set[str],
) -> set[str]:
    """Chosen findings whose filling covers a tenth or more of a lesion that stays."""
    harming = set()
    for kept, mask in masks.items():
        if places[kept].finding in chosen:
            continue
        for finding in chosen:
            filled = [widened[n] for n in widened if places[n].finding == finding]
            covered = np.logical_or.reduce(filled) & mask
            if covered.sum() >= _MOST_HARM * mask.sum():
                harming.add(finding)
    return harming
