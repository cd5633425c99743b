"""A whole synthetic data set, laid out and named as CT-RATE, with the truth beside it.

In: a `PhantomConfig`. Out: volumes, CT-RATE's three tables per split, and ``truth.jsonl``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import atomic_write, read_json, sha256_of_json, write_json, write_text
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import PhantomConfig
from ctscribe.base.rows import TruthRow, write_rows
from ctscribe.base.tables import format_csv
from ctscribe.base.types import Flavour, SourceSplit
from ctscribe.base.workers import worker_pool
from ctscribe.data.ct_rate import (
    LABEL_COLUMNS,
    METADATA_COLUMNS,
    REPORT_COLUMNS,
    SPLITS,
    CtRateTree,
)
from ctscribe.phantom.grid import VoxelGrid
from ctscribe.phantom.scanner import (
    Exposure,
    Kernel,
    draw_exposure,
    draw_reconstruction,
    expose,
    metadata_row,
)
from ctscribe.phantom.study import Study, draw_body, draw_patient, draw_study, lesions, render

FORMAT = 1
"""Increased when the same seed gives other bytes than before."""
SCANS_SHARE = (0.85, 0.12, 0.03)
"""Shares of patients with one, two and three scans."""
GZIP_LEVEL = 1


@final
@dataclass(frozen=True)
class _Written:
    """Rows of one volume for the tables, in CT-RATE's columns."""

    metadata: dict[str, str]
    report: dict[str, str]
    labels: dict[str, str]
    truth: TruthRow


def write_dataset(
    out: Path,
    config: PhantomConfig,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes ``out/dataset`` as CT-RATE has it, and ``out/truth.jsonl``.

    The same configuration gives the same bytes, whatever the number of processes and however
    often it was interrupted: volumes already written are kept, the rest is added.

    Args:
        out: Folder; created where needed.
        config: How many patients, how sampled.
        processes: How many patients are drawn at once.
        progress: Called with (patients done, patients in all), first with those that earlier calls
            began.

    Raises:
        CtscribeError: ``E_EXISTS`` when the folder holds a data set of another configuration,
            ``E_WRITE`` when it cannot be written, ``E_BUSY``.
    """
    with one_writer(out):
        _claim(out, {"format": FORMAT, **config.model_dump(mode="json")})
        numbers = {"train": config.num_train_patients, "valid": config.num_valid_patients}
        patients = [(split, number + 1) for split in SPLITS for number in range(numbers[split])]
        progress(_num_begun(out, config, patients), len(patients))
        rows: list[_Written] = []
        for done, written in enumerate(
            _mapped(partial(_write_patient, out, config), patients, processes), 1
        ):
            rows += written
            progress(done, len(patients))
        _write_tables(out, rows)


def _claim(out: Path, request: dict[str, Any]) -> None:
    marker = out / "phantom.json"
    if marker.exists() and read_json(marker).get("hash") != sha256_of_json(request):
        raise CtscribeError(
            "E_EXISTS",
            f"{out} must be empty or hold a phantom data set of the same configuration, but it "
            "holds another one",
        )
    write_json(marker, {"hash": sha256_of_json(request), "request": request})


def _num_begun(
    out: Path, config: PhantomConfig, patients: Sequence[tuple[SourceSplit, int]]
) -> int:
    """Number of patients whose first volume exists."""
    firsts = (f"{split}_{number}_a_1.nii.gz" for split, number in patients)
    tree = CtRateTree(out)
    return sum(tree.volume_path(name, config.flavour).exists() for name in firsts)


def _mapped(
    work: Callable[[tuple[SourceSplit, int]], list[_Written]],
    patients: Sequence[tuple[SourceSplit, int]],
    processes: int,
) -> Iterator[list[_Written]]:
    if processes <= 1:
        yield from map(work, patients)
        return
    with worker_pool(processes) as pool:
        yield from pool.map(work, patients, chunksize=4)


def _write_patient(
    out: Path, config: PhantomConfig, which: tuple[SourceSplit, int]
) -> list[_Written]:
    split, number = which
    seed = np.random.SeedSequence([config.seed, SPLITS.index(split), number])
    own, *scans = (np.random.default_rng(child) for child in seed.spawn(4))
    patient = draw_patient(own)
    body = draw_body(own, patient)
    num_scans = 1 + int(own.choice(3, p=SCANS_SHARE))
    written: list[_Written] = []
    for letter, rng in zip("abc", scans[:num_scans], strict=False):
        study = draw_study(rng, body, patient, config)
        exposure = draw_exposure(rng, body)
        scan_id = f"{split}_{number}_{letter}"
        written += _write_scan(out, config, scan_id, study, exposure, rng)
    return written


def _write_scan(
    out: Path,
    config: PhantomConfig,
    scan_id: str,
    study: Study,
    exposure: Exposure,
    rng: np.random.Generator,
) -> Iterator[_Written]:
    """Writes one or two reconstructions of a scan; yields their rows."""
    kernels: tuple[Kernel, Kernel] = ("soft", "sharp") if rng.random() < 0.5 else ("sharp", "soft")
    count = 2 if rng.random() < config.second_reconstruction else 1
    for index, stream in enumerate(rng.spawn(count)):
        name = f"{scan_id}_{index + 1}.nii.gz"
        reconstruction = draw_reconstruction(stream, exposure, config, kernels[index])
        grid = reconstruction.grid
        path = CtRateTree(out).volume_path(name, config.flavour)
        if not path.exists():
            hu = render(study, grid)
            stored = expose(stream, hu, exposure, reconstruction)
            _write_volume(path, stored, grid, config.flavour, exposure.scanner.intercept)
        yield _Written(
            metadata_row(name, study.scene.body, exposure, reconstruction),
            _report_row(name, study),
            dict(zip(LABEL_COLUMNS, (name, *map(str, study.labels)), strict=True)),
            TruthRow(volume_name=name, scan_id=scan_id, lesions=lesions(study, grid)),
        )


def _write_volume(
    path: Path, hu: npt.NDArray[np.int16], grid: VoxelGrid, flavour: Flavour, intercept: int
) -> None:
    """Writes one volume; v1 is raw under a blank header, v2 Hounsfield units under a true one."""
    if flavour == "v1":
        image = nib.Nifti1Image((hu - np.int16(intercept)).transpose(2, 1, 0), None)
    else:
        image = nib.Nifti1Image(hu.transpose(2, 1, 0), grid.affine)
        image.set_qform(grid.affine, code=1)
        image.set_sform(grid.affine, code=1)
        image.header.set_xyzt_units("mm")
    with atomic_write(path) as file:
        file.write(igzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0))


def _report_row(name: str, study: Study) -> dict[str, str]:
    agent = "after" if study.scene.body.contrast else "without"
    return {
        "VolumeName": name,
        "ClinicalInformation_EN": "Not given.",
        "Technique_EN": f"Axial sections of the thorax were obtained {agent} contrast agent.",
        "Findings_EN": study.report.findings,
        "Impressions_EN": study.report.impression,
    }


def _write_tables(out: Path, rows: Sequence[_Written]) -> None:
    tree = CtRateTree(out)
    for split in SPLITS:
        chosen = [row for row in rows if row.truth.scan_id.startswith(split)]
        _write_csv(tree.metadata_path(split), METADATA_COLUMNS, [row.metadata for row in chosen])
        _write_csv(tree.reports_path(split), REPORT_COLUMNS, [row.report for row in chosen])
        _write_csv(tree.labels_path(split), LABEL_COLUMNS, [row.labels for row in chosen])
    write_rows(out / "truth.jsonl", [row.truth for row in rows])


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    cells = [[row[column] for column in columns] for row in rows]
    write_text(path, format_csv([columns, *cells]))
