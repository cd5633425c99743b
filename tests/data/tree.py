"""A small CT-RATE tree, how it is prepared, and what came of it."""

import csv
import hashlib
import re
from pathlib import Path

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.ct_rate import LABEL_COLUMNS, METADATA_COLUMNS, REPORT_COLUMNS, CtRateTree

VOLUME = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
SLICES = SlicesConfig(num_slices=4, windows="three", frame_size_px=(56, 84))
NAMES = [f"train_{patient}_a_1.nii.gz" for patient in (1, 2, 10)] + ["valid_1_a_1.nii.gz"]


def write_tables(tree: CtRateTree, split: str) -> None:
    rows = [
        {
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
        for name in NAMES
        if name.startswith(split)
    ]
    for path, columns in (
        (tree.metadata_path(split), METADATA_COLUMNS),  # type: ignore[arg-type]
        (tree.reports_path(split), REPORT_COLUMNS),  # type: ignore[arg-type]
        (tree.labels_path(split), LABEL_COLUMNS),  # type: ignore[arg-type]
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def hashes(out: Path) -> dict[str, str]:
    """By file, but for the ledger, which holds times; nothing temporary may be among them.

    The commit in prepare.json does not count, as one may come while tests run.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in ("ledger.sqlite", ".lock"):
            content = path.read_bytes()
            if path.name == "prepare.json":
                content = re.sub(rb'"commit": "[0-9a-f]+"', b"", content)
            found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found
