"""A small CT-RATE tree, how it is prepared, and what came of it."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.base.types import SourceSplit
from ctscribe.data.ct_rate import (
    LABEL_COLUMNS,
    METADATA_COLUMNS,
    REPORT_COLUMNS,
    SPLITS,
    CtRateTree,
)
from tests.scans import coarse_chest

VOLUME = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
SLICES = SlicesConfig(num_slices=4, windows="three", frame_size_px=(56, 84))
NAMES = [f"train_{patient}_a_1.nii.gz" for patient in (1, 2, 10)] + ["valid_1_a_1.nii.gz"]


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_tables(tree: CtRateTree, split: SourceSplit, rows: list[dict[str, str]]) -> None:
    """Each table takes its own cells of the rows."""
    write_csv(tree.metadata_path(split), METADATA_COLUMNS, rows)
    write_csv(tree.reports_path(split), REPORT_COLUMNS, rows)
    write_csv(tree.labels_path(split), LABEL_COLUMNS, rows)


def row(name: str) -> dict[str, str]:
    return {
        **dict.fromkeys(LABEL_COLUMNS[1:], "1" if "10" in name else "0"),
        "VolumeName": name,
        "Findings_EN": f"Findings of {name[:7]}.",
        "Impressions_EN": "Not given.",
        "XYSpacing": "[6.0, 6.0]",
        "ZSpacing": "8.0",
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "ImagePositionPatient": "[-150, -120, 700]",
        "PatientAge": "061Y",
        "PatientSex": "F",
        "Manufacturer": "PNMS",
    }


def write_tree(root: Path, names: list[str] = NAMES) -> CtRateTree:
    """Axes run to left, posterior, superior; each volume lies 1 mm above the one before."""
    tree = CtRateTree(root)
    chest = coarse_chest()
    for number, name in enumerate(names):
        affine = np.diag([-6.0, -6.0, 8.0, 1.0])
        affine[:3, 3] = (150.0, 120.0, 700.0 + number)
        path = tree.volume_path(name, "v2")
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(chest.hu, affine), path)
    for split in SPLITS:
        write_tables(tree, split, [row(name) for name in names if name.startswith(split)])
    return tree
