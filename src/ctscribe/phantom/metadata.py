"""CT-RATE's metadata row of a phantom volume."""

from ctscribe.phantom.body import Body
from ctscribe.phantom.scanner import Exposure, Reconstruction
from ctscribe.reports.ct_rate import METADATA_COLUMNS

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
