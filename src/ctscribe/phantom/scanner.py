"""The scanner: pose, grid, noise and padding of a scan, and its row in CT-RATE's metadata.

In: a `Body`, and rendered Hounsfield units [z, y, x]. Out: int16 HU as stored, and metadata cells.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from ctscribe.base.recipe import PhantomConfig
from ctscribe.data.ct_rate import METADATA_COLUMNS
from ctscribe.phantom.body import Body
from ctscribe.phantom.grid import Field, VoxelGrid

Kernel = Literal["soft", "sharp"]
TILE_PX = 256
TILE_SLICES = 24
"""Size of the noise volume from which the noise of slices is cut."""


@final
@dataclass(frozen=True)
class Scanner:
    """A scanner model and how it stores volumes.

    Args:
        manufacturer: As in the metadata.
        model: As in the metadata.
        intercept: RescaleIntercept of the raw values; their slope is 1.
        padding_hu: Value outside the circular field of view.
        kernels: Names of the soft and the sharp kernel.
        share: Share of scans from this scanner.
    """

    manufacturer: str
    model: str
    intercept: int
    padding_hu: int
    kernels: tuple[str, str]
    share: float


SCANNERS = (
    Scanner("Siemens Healthineers", "SOMATOM go.Top", -8192, -8192, ("Br40f", "Bl60f"), 0.30),
    Scanner("SIEMENS", "Sensation 16", -1024, -1024, ("B30f", "B70f"), 0.40),
    Scanner("Philips", "Ingenuity CT", -1024, -2048, ("B", "YC"), 0.20),
    Scanner("PNMS", "iCT 256", -1024, -3024, ("C", "L"), 0.10),
)
COMMON = {
    "SpiralPitchFactor": "1.0",
    "TableFeedPerRotation": "38.4",
    "TableSpeed": "76.8",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595.0",
    "GantryDetectorTilt": "0.0",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "GeneratorPower": "35",
    "FocalSpots": "1.2",
    "PatientPosition": "HFS",
    "RevolutionTime": "0.5",
    "SingleCollimationWidth": "0.6",
    "TotalCollimationWidth": "38.4",
    "ExposureModulationType": "XYZ_EC",
    "ImageOrientationPatient": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
    "SamplesPerPixel": "1",
    "PhotometricInterpretation": "MONOCHROME2",
    "RescaleSlope": "1",
    "RescaleType": "HU",
}
"""Cells that are the same for every volume."""


@final
@dataclass(frozen=True)
class Exposure:
    """One acquisition on one scanner, shared by its reconstructions.

    Args:
        roll_rad: Rotation of the patient on the table.
        shift_mm: World position of the carina.
        centre_mm: World (x, y) of the middle of the field of view.
        top_mm: Body z of the highest slice.
        bottom_mm: Body z of the lowest slice.
        noise_hu: Standard deviation of noise in a 5 mm slice with the soft kernel.
        study_date: As in the metadata, yyyymmdd.
    """

    scanner: Scanner
    roll_rad: float
    shift_mm: tuple[float, float, float]
    centre_mm: tuple[float, float]
    top_mm: float
    bottom_mm: float
    noise_hu: float
    study_date: int


@final
@dataclass(frozen=True)
class Reconstruction:
    """How one volume of an acquisition is sampled."""

    grid: VoxelGrid
    kernel: Kernel


def draw_exposure(rng: np.random.Generator, body: Body) -> Exposure:
    """Draws a scanner, the patient's pose and the range of the scan."""
    shares = [scanner.share for scanner in SCANNERS]
    scanner = SCANNERS[int(rng.choice(len(SCANNERS), p=shares))]
    centre = rng.normal(0, [4.0, 10.0])
    carina = centre + rng.normal(0, [6.0, 6.0]) + [0.0, 8.0]
    height = body.scale[2]
    day = 20150000 + 10000 * int(rng.integers(0, 9)) + 100 * int(rng.integers(1, 13))
    return Exposure(
        scanner=scanner,
        roll_rad=float(rng.normal(0, 0.035)),
        shift_mm=(float(carina[0]), float(carina[1]), float(rng.uniform(-300, 150))),
        centre_mm=(float(centre[0]), float(centre[1])),
        top_mm=112 * height + float(rng.uniform(8, 24)),
        bottom_mm=-183 * height - body.inspiration_mm - float(rng.uniform(4, 20)),
        noise_hu=float(rng.uniform(7, 15)),
        study_date=day + int(rng.integers(1, 29)),
    )


def draw_reconstruction(
    rng: np.random.Generator, exposure: Exposure, config: PhantomConfig, kernel: Kernel
) -> Reconstruction:
    """Chooses a grid around the nominal voxel size that covers the lungs."""
    (x_mm, y_mm, z_mm), matrix_px = config.spacing_mm, config.matrix_px
    view = math.floor(matrix_px * x_mm * float(rng.uniform(0.97, 1.1)))
    sx = view / matrix_px
    sy = sx * y_mm / x_mm
    sz = round(z_mm * float(rng.choice([0.9, 1.0, 1.0, 1.1])), 2)
    num_slices = math.ceil((exposure.top_mm - exposure.bottom_mm) / sz)
    half = (matrix_px - 1) / 2
    origin = (
        round(exposure.centre_mm[0] + half * sx, 4),
        round(exposure.centre_mm[1] + half * sy, 4),
        round(exposure.shift_mm[2] + exposure.bottom_mm, 4),
    )
    grid = VoxelGrid(
        shape_zyx=(num_slices, matrix_px, matrix_px),
        spacing_mm=(sx, sy, sz),
        origin_mm=origin,
        roll_rad=exposure.roll_rad,
        shift_mm=exposure.shift_mm,
        edge_mm=max(sx, 1.0) if kernel == "soft" else sx,
    )
    return Reconstruction(grid, kernel)


def expose(
    rng: np.random.Generator, hu: Field, exposure: Exposure, reconstruction: Reconstruction
) -> npt.NDArray[np.int16]:
    """Adds noise to a rendered volume and pads it as a scanner does; overwrites ``hu``.

    Returns:
        Hounsfield units as int16, [z, y, x], padded outside the field of view.
    """
    grid = reconstruction.grid
    sharp = reconstruction.kernel == "sharp"
    thickness = math.sqrt(5.0 / max(grid.spacing_mm[2], 1.0))
    shoulders = 1 + 0.9 * np.clip((grid.levels - 60) / 40, 0, 1)
    sigma = exposure.noise_hu * (2.4 if sharp else 1.0) * min(thickness, 2.0) * shoulders
    blur_px = (0.5 if sharp else 1.1) / grid.spacing_mm[0]
    add_noise(
        hu, rng, sigma_hu=sigma.astype(np.float32), kernel=reconstruction.kernel, blur_px=blur_px
    )
    np.clip(hu, -1024, 3071, out=hu)
    np.rint(hu, out=hu)
    stored = hu.astype(np.int16)
    _, rows, columns = grid.shape_zyx
    y, x = np.ogrid[:rows, :columns]
    middle = ((rows - 1) / 2, (columns - 1) / 2)
    outside = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 > (columns / 2) ** 2
    stored[:, outside] = exposure.scanner.padding_hu
    return stored


def add_noise(
    hu: Field, rng: np.random.Generator, *, sigma_hu: Field, kernel: Kernel, blur_px: float
) -> None:
    """Adds noise in place.

    Each slice gets a random piece of a precomputed periodic tile, with a random sign, which is much
    faster than drawing as many normal numbers.

    Args:
        hu: [z, y, x], changed in place.
        rng: Chooses the pieces.
        sigma_hu: Standard deviation per slice, [z].
        kernel: soft: smooth noise; sharp: noise with an edge-enhanced spectrum.
        blur_px: Correlation length in pixels.
    """
    tile = _tile(kernel, round(2 * float(np.clip(blur_px, 0, 4))) / 2)
    num_slices, rows, columns = hu.shape
    order = rng.integers(0, TILE_SLICES, (num_slices,))
    top, left = (rng.integers(0, TILE_PX, (num_slices,)) for _ in range(2))
    sign = rng.choice([-1.0, 1.0], num_slices) * sigma_hu
    for z in range(num_slices):
        y, x = (top[z] + np.arange(rows)) % TILE_PX, (left[z] + np.arange(columns)) % TILE_PX
        hu[z] += np.float32(sign[z]) * tile[order[z]][np.ix_(y, x)]


@lru_cache(maxsize=16)
def _tile(kernel: Kernel, blur_px: float) -> Field:
    """Periodic noise of unit standard deviation, [TILE_SLICES, TILE_PX, TILE_PX]."""
    rng = np.random.default_rng([7, int(kernel == "sharp"), int(2 * blur_px)])
    white = rng.standard_normal((TILE_SLICES, TILE_PX, TILE_PX), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
    low_pass = np.exp(-2 * (np.pi * blur_px * frequency) ** 2)
    ramp = frequency**0.25 if kernel == "soft" else 0.05 + frequency
    shaped = np.fft.irfft2(np.fft.rfft2(white) * (low_pass * ramp), s=(TILE_PX, TILE_PX))
    return np.asarray(shaped / shaped.std(), dtype=np.float32)


def metadata_row(
    volume_name: str, body: Body, exposure: Exposure, reconstruction: Reconstruction
) -> dict[str, str]:
    """Every column of CT-RATE's metadata for one volume, in its order."""
    grid, scanner = reconstruction.grid, exposure.scanner
    sx, sy, sz = grid.spacing_mm
    kernel = scanner.kernels[int(reconstruction.kernel == "sharp")]
    current = round(60 + 1500 / exposure.noise_hu)
    x, y, z = grid.origin_mm
    centre = f"[{-exposure.centre_mm[0]:.4f}, {-exposure.centre_mm[1]:.4f}, {z:.4f}]"
    cells = {
        **COMMON,
        "VolumeName": volume_name,
        "Manufacturer": scanner.manufacturer,
        "SeriesDescription": f"Thorax {sz:g} {kernel}",
        "ManufacturerModelName": scanner.model,
        "PatientSex": "F" if body.female else "M",
        "PatientAge": f"{body.age_years:03d}Y",
        "ReconstructionDiameter": f"{sx * grid.shape_zyx[2]:.1f}",
        "TableHeight": f"{150 - exposure.shift_mm[1]:.1f}",
        "XRayTubeCurrent": str(2 * current),
        "Exposure": str(current),
        "FilterType": "FLAT" if "emens" in scanner.manufacturer.lower() else "WEDGE_2",
        "ConvolutionKernel": kernel,
        "DataCollectionCenterPatient": centre,
        "ReconstructionTargetCenterPatient": centre,
        "CTDIvol": f"{0.055 * current:.2f}",
        "ImagePositionPatient": f"[{-x:.4f}, {-y:.4f}, {z:.4f}]",
        "SliceLocation": f"{z:.4f}",
        "Rows": str(grid.shape_zyx[1]),
        "Columns": str(grid.shape_zyx[2]),
        "XYSpacing": f"[{sx!r}, {sy!r}]",
        "RescaleIntercept": str(scanner.intercept),
        "NumberofSlices": str(grid.shape_zyx[0]),
        "ZSpacing": repr(sz),
        "StudyDate": str(exposure.study_date),
    }
    return {column: cells[column] for column in METADATA_COLUMNS}
