"""A CT-RATE tree → the volumes to prepare with their reports, and those to skip with the reason."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import printable
from ctscribe.base.rows import ReportedRow, ReportText, SkippedRow
from ctscribe.base.tables import Cells
from ctscribe.base.types import SourceSplit, Split
from ctscribe.data.ct_rate import (
    SPLITS,
    CtRateTree,
    VolumeCells,
    each_report,
    parse_metadata,
    parse_volume_name,
    read_labels,
    read_metadata,
    read_no_chest,
    read_reported,
)
from ctscribe.scan.metadata import VolumeMetadata, kernel_sharpness
from ctscribe.text.report_tables import report_fields

Reconstructions = Literal["one", "all"]
"""One reconstruction per scan, or every one."""
NO_CHEST = "E_NO_CHEST"
"""Code of volumes that the data set's authors exclude; this does not count as a failure."""


@final
class ListedVolume(ReportedRow):
    """A volume on disk, with its report and metadata."""

    findings: ReportText
    """Empty where the scan has no report; it can then only be drafted."""
    split: Split | None = None
    """As the manifest states it; None leaves it to `prepared.split_of`."""
    path: Path
    """File or folder of the volume."""
    metadata: VolumeMetadata | None = None
    """CT-RATE's row, if there is one."""
    masks_dir: Path | None = None
    """Folder of lesion masks, each named after its finding, if there is one."""
    series: str | None = None
    """Number or SeriesInstanceUID of the DICOM series to read, if the manifest states it."""


def each_volume(
    root: Path, thin_mm: float, reconstructions: Reconstructions = "one"
) -> Iterator[ListedVolume | SkippedRow]:
    """Joins the volumes of a tree with their reports, labels and metadata.

    One reconstruction of each scan is taken, or all; see `choose_reconstructions`. Without a labels
    file the volumes have no labels; a labels file must have a row for each. Volumes that the
    published lists exclude are skipped.

    Yields:
        Volumes to prepare and volumes to skip, in no particular order. Reports are read one by one,
        so that not all texts are in memory.

    Raises:
        CtscribeError: ``E_MISSING`` when there is no reports file, or what is wrong with a table.
    """
    tree = CtRateTree(root)
    splits = [split for split in SPLITS if tree.reports_path(split).exists()]
    if not splits:
        raise CtscribeError(
            "E_MISSING",
            f"{root} must hold CT-RATE's reports, such as {tree.reports_path('train')}, but does "
            "not",
        )
    reported: set[str] = set()
    for split in splits:
        yield from _join(tree, split, thin_mm, reconstructions, reported)
    yield from _without_report(tree.root, reported)


def _join(
    tree: CtRateTree,
    split: SourceSplit,
    thin_mm: float,
    reconstructions: Reconstructions,
    reported: set[str],
) -> Iterator[ListedVolume | SkippedRow]:
    """Joins the tables of a split; adds the volumes in its reports file to ``reported``."""
    names = read_reported(tree.reports_path(split))
    tables = _read_tables(tree, split)
    reported.update(names)
    paths: dict[str, Path] = {}
    metadata: dict[str, VolumeMetadata] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            scan_id = parse_volume_name(name).scan_id
            if name in tables.no_chest:
                raise CtscribeError(
                    NO_CHEST, f"{name} is on CT-RATE's list of volumes that are not chests"
                )
            known = parse_metadata(tables.metadata[name]) if name in tables.metadata else None
            path = tree.find_volume(name)
        except CtscribeError as error:
            yield SkippedRow.of(name, error)
            continue
        if path is None:
            absent.setdefault(scan_id, name)
            continue
        paths[name] = path
        if known is not None:
            metadata[name] = known
    present = {parse_volume_name(name).scan_id for name in paths}
    for scan_id, name in absent.items():
        if scan_id not in present:
            fault = f"{scan_id} must have a volume on disk because it has a report, but has none"
            yield SkippedRow.of(name, CtscribeError("E_MISSING", fault))
    chosen = {*choose_reconstructions(metadata, paths, thin_mm, reconstructions)}
    for name, report in each_report(tree.reports_path(split)) if chosen else ():
        if name in chosen:
            try:
                yield _listed(name, paths[name], metadata.get(name), report, tables)
            except CtscribeError as error:
                yield SkippedRow.of(name, error)


@final
@dataclass(frozen=True, slots=True)
class _Tables:
    metadata: VolumeCells
    labels: VolumeCells | None
    no_chest: frozenset[str]


def _read_tables(tree: CtRateTree, split: SourceSplit) -> _Tables:
    metadata, labels = tree.metadata_path(split), tree.labels_path(split)
    return _Tables(
        read_metadata(metadata) if metadata.exists() else {},
        read_labels(labels) if labels.exists() else None,
        read_no_chest(tree.no_chest_path(split)),
    )


def choose_reconstructions(
    metadata: Mapping[str, VolumeMetadata],
    names: Iterable[str],
    thin_mm: float,
    reconstructions: Reconstructions = "one",
) -> list[str]:
    """Chooses for each scan the reconstruction that serves best.

    The thinnest slices are preferred, where all up to ``thin_mm`` count as equal; then the softest
    kernel, which has the least noise; then the most slices; then the lowest number. Volumes without
    metadata come last. The names are returned in `natural_order`.
    """
    if reconstructions == "all":
        return sorted(names, key=natural_order)
    by_scan: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_scan[parse_volume_name(name).scan_id].append(name)

    def preference(name: str) -> tuple[float, float, int, int]:
        row = metadata.get(name)
        number = parse_volume_name(name).reconstruction
        if row is None or row.spacing_mm is None:
            return float("inf"), 0.0, 0, number
        thickness = max(row.spacing_mm[2], thin_mm)
        return thickness, kernel_sharpness(row.kernel), -(row.num_slices or 0), number

    return sorted((min(group, key=preference) for group in by_scan.values()), key=natural_order)


def natural_order(volume_name: str) -> tuple[str, int, str, int]:
    """Sort key: train before valid, then patients and reconstructions by number."""
    parts = parse_volume_name(volume_name)
    patient = int(parts.patient_id.split("_")[1])
    return parts.split, patient, parts.scan_id.rsplit("_", 1)[1], parts.reconstruction


def _listed(
    name: str, path: Path, metadata: VolumeMetadata | None, report: Cells, tables: _Tables
) -> ListedVolume:
    texts = report["Findings_EN"], report["Impressions_EN"]
    labels = {} if tables.labels is None else tables.labels.get(name)
    parts = parse_volume_name(name)
    return ListedVolume(
        volume_name=name,
        patient_id=parts.patient_id,
        scan_id=parts.scan_id,
        source_split=parts.split,
        path=path,
        metadata=metadata,
        **report_fields(name, texts, tables.metadata.get(name, {}), labels),
    )


def _without_report(root: Path, reported: set[str]) -> Iterator[SkippedRow]:
    for name in sorted({path.name for path in root.rglob("*.nii*")} - reported):
        fault = f"{name[:80]} must have a row in the reports file, but has none"
        yield SkippedRow.of(printable(name), CtscribeError("E_NO_REPORT", fault))
