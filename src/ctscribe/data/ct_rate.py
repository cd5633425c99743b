"""CT-RATE's folders, file names, columns and cells (Hamamci et al., arXiv:2403.17834).

Names agree with the public release of the data set; a flat folder that holds the same files
side by side is read as well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_text
from ctscribe.base.outside_text import nfc
from ctscribe.base.tables import NUMBER, Cells, check_columns, each_csv_row, read_csv
from ctscribe.base.types import Flavour, SourceSplit
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.text.findings import FINDINGS

VolumeCells = dict[str, Cells]
"""VolumeName → its row."""

SPLITS: tuple[SourceSplit, ...] = ("train", "valid")
_LONG_SPLIT: dict[SourceSplit, str] = {"train": "train", "valid": "validation"}
METADATA_COLUMNS = tuple(
    """VolumeName Manufacturer SeriesDescription ManufacturerModelName PatientSex PatientAge
    ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt
    TableHeight RotationDirection ExposureTime XRayTubeCurrent Exposure FilterType GeneratorPower
    FocalSpots ConvolutionKernel PatientPosition RevolutionTime SingleCollimationWidth
    TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor
    DataCollectionCenterPatient ReconstructionTargetCenterPatient ExposureModulationType CTDIvol
    ImagePositionPatient ImageOrientationPatient SliceLocation SamplesPerPixel
    PhotometricInterpretation Rows Columns XYSpacing RescaleIntercept RescaleSlope RescaleType
    NumberofSlices ZSpacing StudyDate""".split()  # noqa: SIM905 - one string reads as the header line
)
REPORT_COLUMNS = (
    "VolumeName",
    "ClinicalInformation_EN",
    "Technique_EN",
    "Findings_EN",
    "Impressions_EN",
)
LABEL_COLUMNS = ("VolumeName", *FINDINGS)
_USED_METADATA = tuple(
    """VolumeName Manufacturer PatientSex PatientAge ConvolutionKernel ImagePositionPatient
    ImageOrientationPatient XYSpacing RescaleIntercept RescaleSlope NumberofSlices
    ZSpacing""".split()  # noqa: SIM905 - as above
)
_NO_NUMBERS = re.compile(r"(?:[\s\[\](){},;'\"/-]|nan|none|null|n/?a)*", re.IGNORECASE)
_VOLUME_NAME = re.compile(r"(train|valid)_([1-9][0-9]*)_([a-z]+)_([1-9][0-9]*)\.nii\.gz")


@final
@dataclass(frozen=True, slots=True)
class VolumeName:
    """The parts of ``split_patient_scan_reconstruction.nii.gz``."""

    split: SourceSplit
    patient_id: str
    """Such as ``train_53``; with the split, because numbers restart in each split."""
    scan_id: str
    """Such as ``train_53_a``; reconstructions of a scan share its report and labels."""
    reconstruction: int


def parse_volume_name(name: str) -> VolumeName:
    """Parses a name such as ``valid_53_a_1.nii.gz``.

    Raises:
        CtscribeError: ``E_VOLUME_NAME``.
    """
    match = _VOLUME_NAME.fullmatch(name)
    if match is None:
        raise CtscribeError(
            "E_VOLUME_NAME",
            "a volume must be named split_patient_scan_reconstruction.nii.gz, such as "
            f"valid_53_a_1.nii.gz, but {name[:80]!r} was found",
        )
    patient_id = f"{match[1]}_{match[2]}"
    split: SourceSplit = "train" if match[1] == "train" else "valid"
    return VolumeName(split, patient_id, f"{patient_id}_{match[3]}", int(match[4]))


@final
@dataclass(frozen=True, slots=True)
class CtRateTree:
    """The paths of a data set: below ``root/dataset``, below ``root``, or flat in ``root``."""

    root: Path

    def metadata_path(self, split: SourceSplit) -> Path:
        """Scanner, geometry and rescale values per volume."""
        return self._place(f"metadata/{_LONG_SPLIT[split]}_metadata.csv")

    def reports_path(self, split: SourceSplit) -> Path:
        """Findings and impression per volume."""
        return self._place(f"radiology_text_reports/{_LONG_SPLIT[split]}_reports.csv")

    def labels_path(self, split: SourceSplit) -> Path:
        """The 18 findings per volume; here CT-RATE says ``valid``, not ``validation``."""
        return self._place(f"multi_abnormality_labels/{split}_predicted_labels.csv")

    def no_chest_path(self, split: SourceSplit) -> Path:
        """The published list of volumes that are not chests."""
        return self._place(f"metadata/no_chest_{split}.txt")

    def volume_path(self, volume_name: str, flavour: Flavour) -> Path:
        """The path of one volume in one release, whether or not it exists."""
        parts = parse_volume_name(volume_name)
        folder = parts.split if flavour == "v1" else f"{parts.split}_fixed"
        return self._place(f"{folder}/{parts.patient_id}/{parts.scan_id}/{volume_name}")

    def find_volume(self, volume_name: str) -> Path | None:
        """The file of one volume, v2 before v1, or None when neither is there."""
        paths = (self.volume_path(volume_name, "v2"), self.volume_path(volume_name, "v1"))
        return next((path for path in paths if path.exists()), None)

    def _place(self, relative: str) -> Path:
        flat = self.root / Path(relative).name
        places = (self.root / "dataset" / relative, self.root / relative, flat)
        return next((place for place in places if place.exists()), places[0])


def read_metadata(path: Path) -> VolumeCells:
    """Reads the columns of a metadata CSV that we use; others are allowed and dropped."""
    return read_table(path, required=_USED_METADATA)


def read_reported(path: Path) -> tuple[str, ...]:
    """The volumes in a reports CSV, whose columns must be `REPORT_COLUMNS`."""
    table = read_csv(path, keep=("VolumeName",))
    check_columns(table, REPORT_COLUMNS, REPORT_COLUMNS)
    return tuple(table.by_name("VolumeName"))


def each_report(path: Path) -> Iterator[tuple[str, Cells]]:
    """Yields every volume of a reports CSV with its row, so that not all texts are in memory."""
    for _, cells in each_csv_row(path)[1]:
        yield nfc(cells["VolumeName"].strip()), cells


def read_labels(path: Path) -> VolumeCells:
    """Reads a labels CSV; the columns must be `LABEL_COLUMNS`, in any order."""
    return read_table(path, required=LABEL_COLUMNS, allow_others=False)


def read_no_chest(path: Path) -> frozenset[str]:
    """The volume names on an exclusion list, one per line; empty if there is no such file."""
    if not path.exists():
        return frozenset()
    names = (line.strip() for line in read_text(path).split("\n"))
    return frozenset(Path(name).name for name in names if name)


def read_table(path: Path, *, required: tuple[str, ...], allow_others: bool = True) -> VolumeCells:
    """Reads a CSV that names each volume once; columns beyond the required ones are dropped.

    Raises:
        CtscribeError: As `read_csv`, `check_columns` and `CellTable.by_name`.
    """
    table = read_csv(path, keep=required)
    check_columns(table, required, None if allow_others else required)
    return table.by_name("VolumeName")


def parse_metadata(row: Cells) -> VolumeMetadata:
    """Turns the cells of one metadata row into numbers.

    Raises:
        CtscribeError: ``E_METADATA`` naming the volume, the column and the cell.
    """
    name = row["VolumeName"]
    xy = _numbers(name, row, "XYSpacing", 2)
    z = _numbers(name, row, "ZSpacing", 1)
    position = _numbers(name, row, "ImagePositionPatient", 3)
    slope = _numbers(name, row, "RescaleSlope", 1)
    intercept = _numbers(name, row, "RescaleIntercept", 1)
    slices = _numbers(name, row, "NumberofSlices", 1)
    return VolumeMetadata(
        spacing_mm=(xy[0], xy[1], z[0]) if xy and z else None,
        slope=slope[0] if slope else None,
        intercept=intercept[0] if intercept else None,
        position_lps_mm=(position[0], position[1], position[2]) if position else None,
        orientation=_numbers(name, row, "ImageOrientationPatient", 6),
        kernel=row["ConvolutionKernel"].strip(),
        num_slices=int(slices[0]) if slices else None,
    )


def _numbers(name: str, row: Cells, column: str, count: int) -> tuple[float, ...] | None:
    cell = row[column].strip()
    if _NO_NUMBERS.fullmatch(cell):
        return None
    found = tuple(float(number) for number in NUMBER.findall(cell))
    if len(found) != count or re.search(r"[A-DF-Za-df-z]", cell):
        raise CtscribeError(
            "E_METADATA",
            f"{name} must have {count} number(s) in {column}, but {cell[:60]!r} was found",
        )
    return found
