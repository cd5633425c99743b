"""The cells of CT-RATE's CSV files as numbers, texts and labels."""

import re
from dataclasses import dataclass
from typing import final

from ctscribe.errors import CtscribeError
from ctscribe.reports.ct_rate import NOT_GIVEN
from ctscribe.reports.findings import FINDINGS
from ctscribe.types import Labels, SpacingMm

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@final
@dataclass(frozen=True, slots=True)
class VolumeMetadata:
    """One row of the metadata; None where the cell is empty."""

    spacing_mm: SpacingMm | None
    slope: float | None
    intercept: float | None
    position_lps_mm: tuple[float, float, float] | None
    """ImagePositionPatient, the first voxel's centre, in DICOM's axes."""
    orientation: tuple[float, ...] | None
    """ImageOrientationPatient, six cosines."""
    kernel: str
    num_slices: int | None
    manufacturer: str | None
    sex: str | None
    age_years: float | None


def parse_metadata(row: dict[str, str]) -> VolumeMetadata:
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
        manufacturer=row["Manufacturer"].strip() or None,
        sex=row["PatientSex"].strip() or None,
        age_years=parse_age_years(row["PatientAge"]),
    )


def parse_report(row: dict[str, str]) -> tuple[str, str]:
    """Findings and impression of one row, "Not given." read as empty.

    Raises:
        CtscribeError: ``E_EMPTY_REPORT`` when there are no findings.
    """
    texts = (" ".join(row[column].split()) for column in ("Findings_EN", "Impressions_EN"))
    findings, impression = ("" if text == NOT_GIVEN else text for text in texts)
    if not findings:
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"{row['VolumeName']} must have findings in its report, but they are empty",
        )
    return findings, impression


def parse_labels(row: dict[str, str]) -> Labels:
    """The 18 findings of one row in `FINDINGS` order.

    Raises:
        CtscribeError: ``E_LABELS`` naming the volume and the cell.
    """
    values = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
    for finding in FINDINGS:
        if row[finding].strip() not in values:
            raise CtscribeError(
                "E_LABELS",
                f"{row['VolumeName']} must have 0 or 1 for {finding!r}, but "
                f"{row[finding][:20]!r} was found",
            )
    return tuple(values[row[finding].strip()] for finding in FINDINGS)


def _numbers(name: str, row: dict[str, str], column: str, count: int) -> tuple[float, ...] | None:
    cell = row[column].strip()
    if cell.lower() in ("", "nan", "none"):
        return None
    found = tuple(float(number) for number in _NUMBER.findall(cell))
    if len(found) != count or re.search(r"[A-DF-Za-df-z]", cell):
        raise CtscribeError(
            "E_METADATA",
            f"{name} must have {count} number(s) in {column}, but {cell[:60]!r} was found",
        )
    return found


def parse_age_years(cell: str) -> float | None:
    """Years of a DICOM age such as ``045Y`` or ``006M``; None for anything else."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", cell.strip())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return int(match[1]) / per_year
