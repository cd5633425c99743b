"""Where anybody says that findings are, read from boxes, masks or a run's evidence.

In: a phantom's ``truth.jsonl``, ``evidence.jsonl`` of a run, JSONL of boxes, or any masks that
`lesions.list_masks` reads. Out: volume → a loader of its regions, by what they show.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import model_validator

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import Name, Row, StudyRow, TruthRow, read_rows
from ctscribe.base.types import BoxMm
from ctscribe.data.lesions import (
    SENTENCES,
    MaskFile,
    MaskFiles,
    is_boxes,
    list_masks,
    list_sentence_masks,
)
from ctscribe.data.prepared import Prepared, stem
from ctscribe.scan.boxes import reach_of_frames
from ctscribe.scan.regions import Grid, Region
from ctscribe.text.findings import FINDINGS

if TYPE_CHECKING:
    from ctscribe.write.evidence import SentenceEvidence

Shown = Mapping[str, list[Region]]
"""What is shown, a finding or a sentence → where."""
Loaders = Mapping[str, Callable[[Grid | None], Shown]]
"""Volume name without suffix → reads its regions, told the voxels of the scan where known."""


class BoxRow(Row):
    """A line of anybody's boxes: one finding, once, in one volume."""

    volume_name: Name
    finding: str
    """One of the 18."""
    box_mm: BoxMm | None = None
    """Lower and upper corner in RAS+ mm."""
    box_voxels: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    """First and last voxel (x, y, z) of the scan as stored, both inside, in place of mm."""

    @model_validator(mode="after")
    def _must_be_one_box(self) -> "BoxRow":
        if (self.box_mm is None) == (self.box_voxels is None):
            raise ValueError("a box must be given as box_mm or as box_voxels")
        if self.finding not in FINDINGS:
            raise ValueError("finding must be one of the 18")
        first, last = self.box_mm or self.box_voxels or ((), ())
        if any(low > high for low, high in zip(first, last, strict=True)):
            raise ValueError("a box must reach from its lower to its upper corner")
        return self


def read_places(
    path: Path, prepared: Prepared | None = None, *, allow_outside: bool = False
) -> Loaders:
    """Lists what is shown in which volume; masks are read when a volume's turn comes.

    Args:
        path: See the module's first lines.
        prepared: The studies whose frames a run's evidence counts along.
        allow_outside: As `list_masks`.

    Raises:
        CtscribeError: ``E_OPTION`` for evidence without ``prepared``, and as `read_rows` and
            `list_masks`.
    """
    if not path.is_file() or path.suffix != ".jsonl":
        return _mask_loaders(list_masks(path, allow_outside=allow_outside))
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    if b'"sentences"' in line:
        return _evidence_loaders(path, prepared)
    if b'"lesions"' in line:
        return {stem(row.volume_name): partial(_of_truth, row) for row in read_rows(path, TruthRow)}
    if is_boxes(path):
        return _box_loaders(path)
    return _mask_loaders(list_masks(path, allow_outside=allow_outside))


def read_sentence_places(predicted: Path, reference: Path) -> tuple[Loaders, Loaders] | None:
    """Masks of the same sentences, as ReXGroundingCT has them, predicted and true.

    None unless ``reference`` lists sentences in its ``dataset.json`` and ``predicted`` is a folder
    with a file for one of its volumes or more.

    Raises:
        CtscribeError: As `list_sentence_masks`.
    """
    sentences = reference / SENTENCES
    if not (sentences.is_file() and predicted.is_dir()):
        return None
    said = list_sentence_masks(predicted, sentences)
    true = list_sentence_masks(reference, sentences)
    return (_mask_loaders(said), _mask_loaders(true)) if said else None


def _mask_loaders(files: MaskFiles) -> Loaders:
    return {name: partial(_of_masks, each) for name, each in files.items()}


def _of_masks(files: Sequence[MaskFile], _: Grid | None) -> Shown:
    shown: dict[str, list[Region]] = {}
    for file in files:
        masks, affine = file.read()
        for mask, names in zip(masks, file.shown, strict=True):
            if names and (region := Region.of_mask(mask, affine)):
                for name in names:
                    shown.setdefault(name, []).append(region)
    return shown


def _of_truth(row: TruthRow, _: Grid | None) -> Shown:
    shown: dict[str, list[Region]] = {}
    for lesion in row.lesions:
        shown.setdefault(lesion.finding, []).append(Region.of_box(lesion.box_mm))
    return shown


def _box_loaders(path: Path) -> Loaders:
    by_volume: dict[str, list[BoxRow]] = {}
    for row in read_rows(path, BoxRow):
        by_volume.setdefault(stem(row.volume_name), []).append(row)
    return {name: partial(_of_boxes, rows) for name, rows in by_volume.items()}


def _of_boxes(rows: Sequence[BoxRow], scan: Grid | None) -> Shown:
    shown: dict[str, list[Region]] = {}
    for row in rows:
        if row.box_mm is not None:
            region = Region.of_box(row.box_mm)
        elif row.box_voxels is not None and scan is not None:
            region = Region(np.array(row.box_voxels, dtype=np.float64).T, scan.affine)
        else:
            raise CtscribeError(
                "E_WHERE",
                f"boxes in voxels need masks of {row.volume_name} to count along, but the "
                "reference has none",
            )
        shown.setdefault(row.finding, []).append(region)
    return shown


def _evidence_loaders(path: Path, prepared: Prepared | None) -> Loaders:
    if prepared is None:
        raise CtscribeError(
            "E_OPTION",
            f"{path.name} counts in pixels of frames, so --prepared must be given, but is not",
        )
    # masks and boxes are compared where there is no torch
    from ctscribe.write.evidence import EvidenceRow

    rows = read_rows(path, EvidenceRow)
    lacking = [row.volume_name for row in rows if row.volume_name not in prepared.by_name]
    if lacking:
        raise CtscribeError(
            "E_PREDICTION",
            f"each scan of the evidence must be prepared, but {lacking[0]} is not in "
            f"{prepared.folder}",
        )
    return {
        stem(row.volume_name): partial(
            _of_evidence, row.sentences, prepared.by_name[row.volume_name]
        )
        for row in rows
    }


def _of_evidence(sentences: "Sequence[SentenceEvidence]", study: StudyRow, _: Grid | None) -> Shown:
    """Each finding a sentence affirms, in the box of the slice pair or plane it rests on most."""
    shown: dict[str, list[Region]] = {}
    reach, to_ras = reach_of_frames(study), np.array(study.frame_to_ras)
    for sentence in sentences:
        best = sentence.pairs[0] if sentence.pairs else None
        if best is not None and best.box_mm is not None:
            region = Region.of_box(best.box_mm)
        elif best is not None and best.box_px is not None:
            left, top, right, bottom = best.box_px
            z = reach[2 * best.pair : 2 * best.pair + 2]
            ends = np.array([(left, right - 1), (top, bottom - 1), (z.min(), z.max())], dtype=float)
            region = Region(ends, to_ras)
        else:
            continue
        for finding in sentence.findings:
            shown.setdefault(finding, []).append(region)
    return shown
