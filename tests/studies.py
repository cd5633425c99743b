"""Rows of prepared studies, and prepared folders, for tests that do not mind which."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ctscribe.base.recipe import Recipe, SplitsConfig
from ctscribe.base.rows import PredictionRow, StudyRow, write_rows
from ctscribe.base.tables import format_csv
from ctscribe.data.prepare import open_prepared
from ctscribe.data.prepare_volume import Preparation, write_frames
from ctscribe.data.prepared import Prepared, split_of
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS

NORMAL = "The heart is of normal size. No pleural effusion is seen."
SENTENCES = {
    "Hiatal hernia": "A sliding hiatal hernia is seen.",
    "Lung nodule": "There is a 5 mm nodule in the left lung.",
    "Pleural effusion": "A small pleural effusion lies on the right.",
    "Emphysema": "Emphysema is present in both lungs.",
    "Consolidation": "There is consolidation in the right lower lobe.",
}


def study_row(name: str, **changes: object) -> StudyRow:
    """A normal chest of slices 3 mm apart, of which four are shown.

    Args:
        name: Of the volume. Where it is as CT-RATE's, such as ``valid_1_a_1.nii.gz``, it tells
            patient, scan and split; any other name is also patient and scan, and trains.
        changes: Other fields; positions follow spacing and indices unless they are given too.
    """
    scan = name.removesuffix(".nii.gz").rpartition("_")[0] or name
    fields: dict[str, object] = {
        "volume_name": name,
        "patient_id": scan.rpartition("_")[0] or name,
        "scan_id": scan,
        "source_split": "valid" if name.startswith("valid") else "train",
        "findings": "The lungs are clear.",
        "impression": "Normal chest.",
        "labels": None,
        "spacing_mm": (3.0, 3.0, 3.0),
        "shape_xyz": (56, 56, 100),
        "slice_indices": (30, 20, 10, 0),
        "frame_to_ras": tuple(map(tuple, np.eye(4).tolist())),
    }
    fields |= changes
    patient, source_split = str(fields["patient_id"]), fields["source_split"]
    usual = split_of(patient, "valid" if source_split == "valid" else "train", SplitsConfig())
    indices = fields["slice_indices"]
    assert isinstance(indices, tuple)
    defaults = {"split": usual, "position_mm": (0.0,) * len(indices)}
    row = StudyRow.model_validate(defaults | fields)
    if "position_mm" in changes:
        return row
    position_mm = tuple(row.spacing_mm[2] * index for index in row.slice_indices)
    return row.model_copy(update={"position_mm": position_mm})


def write_prepared(
    folder: Path,
    studies: Iterable[StudyRow],
    recipe: Recipe | None = None,
    *,
    frames: Iterable[Frames] | None = None,
) -> Prepared:
    """A folder as `prepare` leaves it, but for the stores and the ledger.

    Args:
        folder: Is made; what an earlier call wrote there is replaced.
        studies: Its rows.
        recipe: Whose volume and slices sections it was prepared for; None means the defaults.
        frames: Of each study, (slices, height, width, 3) uint8; None leaves them out, for tests
            that read words alone.
    """
    studies, recipe = list(studies), recipe or Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    open_prepared(folder, folder, Preparation(recipe.volume, recipe.slices), recipe.splits)
    for row, shown in zip(studies, frames, strict=True) if frames is not None else ():
        write_frames(folder, row.volume_name, shown, {"volume_name": row.volume_name})
    write_rows(folder / "studies.jsonl", studies)
    return Prepared(folder)


def write_reports(path: Path, reports: Mapping[str, str]) -> Path:
    """A table of reports by the names of their volumes."""
    path.write_text(format_csv([("VolumeName", "report_text"), *reports.items()]), "utf-8")
    return path


def random_frames(number: int, shape: tuple[int, int, int, int]) -> list[Frames]:
    """Noise of (slices, height, width, 3) for so many studies."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, shape, dtype=np.uint8) for _ in range(number)]


def reported_studies(count: int, split: str = "valid") -> list[StudyRow]:
    """Studies with zero to three findings and the reports that state them."""
    rng = random.Random(split)
    names = list(SENTENCES)
    return [
        _reported(number, rng.sample(names, k=rng.choice([0, 0, 1, 2, 3])), split)
        for number in range(count)
    ]


def _reported(number: int, findings: list[str], split: str) -> StudyRow:
    return study_row(
        f"{split}_{number}_a_1.nii.gz",
        findings=" ".join([NORMAL, *(SENTENCES[finding] for finding in findings)]),
        impression=f"Case {number % 7} of its kind.",
        labels=tuple(int(finding in findings) for finding in FINDINGS),
        sex="F" if number % 2 else "M",
        age_years=float(20 + number % 60),
    )


def prediction(study: StudyRow, findings: str | None = None) -> PredictionRow:
    """What a system wrote about a study: these findings alone, or the reference itself."""
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=study.findings if findings is None else findings,
        impression=study.impression if findings is None else "",
        num_tokens=1,
        finished=True,
    )
