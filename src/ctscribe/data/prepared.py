"""Reads a prepared folder: studies by split, their frames, and the recipe of the frames."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import first_difference, object_in, read_json, sha256_of_json
from ctscribe.base.outside_text import nfc
from ctscribe.base.recipe import Recipe, SlicesConfig, SplitsConfig, VolumeConfig
from ctscribe.base.rows import StudyRow, each_row, one_per_scan, sha256_of_rows
from ctscribe.base.types import Labels, Projection, SourceSplit, SpacingMm, Split, Windows
from ctscribe.scan.read import read_volume
from ctscribe.scan.stores import map_npy
from ctscribe.scan.types import Frames
from ctscribe.scan.volume import CTVolume

STUDIES = "studies.jsonl"


@final
@dataclass(frozen=True, slots=True)
class StudyOutline:
    """A study without its report; takes a tenth of a `StudyRow`'s memory."""

    volume_name: str
    patient_id: str
    split: Split
    has_report: bool
    labels: Labels | None
    manufacturer: str | None
    sex: str | None
    age_years: float | None
    spacing_mm: SpacingMm
    position_mm: tuple[float, float]
    """Superior coordinate of the first and of the last slice shown, RAS+."""


AnyStudy = StudyRow | StudyOutline


@final
class Prepared:
    """A folder that `prepare` wrote; its files are read when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r})"

    @cached_property
    def studies(self) -> list[StudyRow]:
        """All studies, in the order of ``studies.jsonl``.

        Raises:
            CtscribeError: ``E_MISSING``, or ``E_ROW`` for rows of another version or a patient in
                two splits.
        """
        return [*self._each_study()]

    @cached_property
    def outlines(self) -> list[StudyOutline]:
        """All studies without their reports, which are read one by one and dropped.

        Raises:
            CtscribeError: As `studies`.
        """
        same: dict[object, Any] = {}  # patients and labels repeat
        return [
            StudyOutline(
                volume_name=row.volume_name,
                patient_id=same.setdefault(row.patient_id, row.patient_id),
                split=row.split,
                has_report=row.has_report,
                labels=same.setdefault(row.labels, row.labels),
                manufacturer=same.setdefault(row.manufacturer, row.manufacturer),
                sex=row.sex,
                age_years=row.age_years,
                spacing_mm=same.setdefault(row.spacing_mm, row.spacing_mm),
                position_mm=(row.position_mm[0], row.position_mm[-1]),
            )
            for row in self._each_study()
        ]

    def _each_study(self) -> Iterator[StudyRow]:
        splits: dict[str, Split] = {}
        for row in each_row(self.folder / STUDIES, StudyRow):
            if splits.setdefault(row.patient_id, row.split) != row.split:
                raise CtscribeError(
                    "E_ROW",
                    f"{self.folder / STUDIES} must have each patient in one split, but has that of "
                    f"{row.volume_name} in two",
                )
            yield row

    @cached_property
    def by_name(self) -> dict[str, StudyRow]:
        """All studies by ``volume_name``."""
        return {study.volume_name: study for study in self.studies}

    def split(self, split: Split, *, reported: bool = True) -> list[StudyRow]:
        """The studies of one split; each reconstruction of a scan counts as one.

        Raises:
            CtscribeError: ``E_NO_REPORT`` where ``reported`` and one has no report.
        """
        studies = [study for study in self.studies if study.split == split]
        if reported:
            self.require_reports(studies)
        return studies

    def require_reports(self, studies: Sequence[AnyStudy]) -> None:
        """Refuses studies without a report.

        Raises:
            CtscribeError: ``E_NO_REPORT``.
        """
        bare = sum(not study.has_report for study in studies)
        if bare:
            raise CtscribeError(
                "E_NO_REPORT",
                f"training and scoring need the report of every scan, but {bare} of {len(studies)} "
                f"in {self.folder} were prepared without",
            )

    def scans(self, split: Split, *, reported: bool = True) -> list[StudyRow]:
        """The scans of one split, each with its first prepared reconstruction.

        Raises:
            CtscribeError: ``E_EMPTY_SPLIT`` when there is none, ``E_NO_REPORT`` as `split`.
        """
        scans = one_per_scan(self.split(split, reported=reported))
        if not scans:
            if reported:
                self.require_reports(self.studies)
            raise CtscribeError(
                "E_EMPTY_SPLIT",
                f"the {split} split must have scans, but none of the {len(self.studies)} volumes "
                f"in {self.folder} belongs to it",
            )
        return scans

    @cached_property
    def recipe_of_frames(self) -> tuple[VolumeConfig, SlicesConfig]:
        """The sections of the recipe with which the frames were made.

        Raises:
            CtscribeError: ``E_MISSING``, or ``E_PREPARED`` when another version wrote them.
        """
        asked = object_in(read_json(self.folder / "prepare.json"), "asked")
        try:
            return (
                VolumeConfig.model_validate(asked.get("volume")),
                SlicesConfig.model_validate(asked.get("slices")),
            )
        except ValidationError as error:
            raise CtscribeError(
                "E_PREPARED", f"{self.folder} must be prepared by this version, but was by another"
            ) from error

    @property
    def windows(self) -> Windows:
        """The windows of the frames' channels; see `SlicesConfig`."""
        return self.recipe_of_frames[1].windows

    @property
    def projection(self) -> Projection:
        """Whether frames show slabs; see `SlicesConfig`."""
        return self.recipe_of_frames[1].projection

    def require(self, recipe: Recipe) -> None:
        """Refuses a recipe that asks for other volumes or slices than were prepared.

        Raises:
            CtscribeError: ``E_PREPARED`` naming the first knob that differs.
        """
        there, asked = (
            {"volume": volume.model_dump(mode="json"), "slices": slices.as_asked()}
            for volume, slices in (self.recipe_of_frames, (recipe.volume, recipe.slices))
        )
        if difference := first_difference(there, asked):
            raise CtscribeError(
                "E_PREPARED",
                f"{self.folder} must hold the frames that the recipe asks for, but they differ in "
                f"{difference}",
            )

    def record(self, study: StudyRow) -> dict[str, Any]:
        """The record that `prepare` wrote of a study: its source, geometry and warnings."""
        record: dict[str, Any] = read_json(record_path(self.folder, study.volume_name))
        return record

    def sha256(self, studies: Sequence[StudyRow]) -> str:
        """Hash of the rows and frames of these studies, by which outputs identify their inputs.

        A study whose frames are missing adds only its row; reading the frames will fail later.
        """
        made = [study for study in studies if record_path(self.folder, study.volume_name).exists()]
        frames = [self.record(study).get("frames_crc32") for study in made]
        return sha256_of_json([sha256_of_rows(studies), frames])

    def frames(self, study: AnyStudy) -> Frames:
        """A study's frames; see `read_frames`."""
        return read_frames(self.folder, study.volume_name)

    def volume(self, study: StudyRow) -> CTVolume:
        """A study's volume on the recipe's grid, HU.

        Raises:
            CtscribeError: ``E_MISSING`` where only slices were kept.
        """
        path = self.require_volume(study)
        return read_volume(path, study=study.volume_name, intensity="hu")[0]

    def require_volume(self, study: StudyRow) -> Path:
        """The file of a study's volume.

        Raises:
            CtscribeError: ``E_MISSING`` where only slices were kept.
        """
        path = self._volume_path(study)
        if not path.exists():
            raise CtscribeError(
                "E_MISSING", f"{path} must exist, as `prepare --keep all` writes it"
            )
        return path

    def has_volume(self, study: StudyRow) -> bool:
        """Whether a study's volume was kept beside its slices."""
        return self._volume_path(study).exists()

    def _volume_path(self, study: StudyRow) -> Path:
        return self.folder / "preprocessed" / f"{stem(study.volume_name)}.nii.gz"

    def features(self, tower: str) -> Path:
        """Folder of the visual tokens of the tower with this hash; see `learn.model.features`."""
        return self.folder / "features" / tower


def split_of(patient_id: str, source_split: SourceSplit, splits: SplitsConfig) -> Split:
    """Decides a patient's split by a hash of the id, the same on every machine.

    `prepare` calls this once and writes the split into each row. CT-RATE's validation set is the
    test split.
    """
    if source_split == "valid":
        return "test"
    digest = hashlib.sha256(patient_id.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "validation" if share < splits.validation_fraction else "train"


def frames_path(folder: Path, volume_name: str) -> Path:
    """The file of a volume's frames."""
    return folder / "slices" / f"{stem(volume_name)}.npy"


def record_path(folder: Path, volume_name: str) -> Path:
    """The file of a volume's record, which is written last and so marks it as complete."""
    return folder / "slices" / f"{stem(volume_name)}.json"


def stem(volume_name: str) -> str:
    """A volume's name, in Unicode's composed form, without ``.nii`` or ``.nii.gz``."""
    return nfc(volume_name).removesuffix(".gz").removesuffix(".nii")


def read_frames(folder: Path, volume_name: str) -> Frames:
    """Maps a volume's frames into memory after checking their CRC-32.

    Raises:
        CtscribeError: ``E_MISSING`` when the volume is not prepared, ``E_CACHE`` when its frames
            are not what was written.
    """
    record = read_json(record_path(folder, volume_name))
    return map_npy(frames_path(folder, volume_name), record.get("frames_crc32"), volume_name)
