import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.data.ct_rate import LABEL_COLUMNS, CtRateTree
from ctscribe.data.listing import NO_CHEST, choose_reconstructions, natural_order
from ctscribe.data.manifest import list_source
from ctscribe.scan.metadata import VolumeMetadata, kernel_sharpness
from tests.data.tree import write_csv, write_tables
from tests.refusals import refusal

Row = dict[str, str]
A1, A2, B1 = "train_1_a_1.nii.gz", "train_1_a_2.nii.gz", "train_2_a_1.nii.gz"


@pytest.fixture
def tree(tmp_path: Path) -> CtRateTree:
    tree = CtRateTree(tmp_path)
    rows = [
        {
            **dict.fromkeys(LABEL_COLUMNS[1:], "0"),
            "VolumeName": name,
            "Findings_EN": "Heart normal.",
            "Impressions_EN": "Normal.",
            "ConvolutionKernel": kernel,
            "XYSpacing": "[0.7, 0.7]",
            "ZSpacing": "1",
        }
        for name, kernel in ((A1, "B70f"), (A2, "B31f"), (B1, "B31f"))
    ]
    write_tables(tree, "train", rows)
    for name in (A1, A2, B1):
        path = tree.volume_path(name, "v2")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tree


def rewrite(path: Path, change: Callable[[Row], Row | None]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = tuple(rows[0])
    write_csv(path, columns, [new for row in rows if (new := change(row)) is not None])


def reasons(tree: CtRateTree) -> dict[str, str]:
    return {row.volume_name: row.code for row in list_source(tree.root, 1.5)[1]}


def names(tree: CtRateTree) -> list[str]:
    return [volume.volume_name for volume in list_source(tree.root, 1.5)[0]]


def test_one_softest_reconstruction_per_scan(tree: CtRateTree) -> None:
    volumes, skipped = list_source(tree.root, 1.5)
    assert [volume.volume_name for volume in volumes] == [A2, B1]
    assert skipped == []
    first = volumes[0]
    assert (first.findings, first.impression, first.labels) == (
        "Heart normal.",
        "Normal.",
        (0,) * 18,
    )
    assert first.metadata is not None
    assert first.metadata.kernel == "B31f"
    assert first.path == tree.volume_path(A2, "v2")


def test_published_exclusions(tree: CtRateTree) -> None:
    tree.no_chest_path("train").write_text(f"{B1}\n")
    assert names(tree) == [A2]
    assert reasons(tree) == {B1: NO_CHEST}


def test_volume_without_label_row(tree: CtRateTree) -> None:
    rewrite(tree.labels_path("train"), lambda row: None if row["VolumeName"] == B1 else row)
    assert reasons(tree) == {B1: "E_NO_LABELS"}
    (row,) = list_source(tree.root, 1.5)[1]
    assert row.reason.startswith(f"{B1} must have a row in the labels file")


def test_no_labels_file_means_no_labels(tree: CtRateTree) -> None:
    tree.labels_path("train").unlink()
    assert {volume.labels for volume in list_source(tree.root, 1.5)[0]} == {None}


def test_no_metadata_file(tree: CtRateTree) -> None:
    tree.metadata_path("train").unlink()
    assert names(tree) == [A1, B1]


def test_empty_report_and_bad_cells(tree: CtRateTree) -> None:
    def without_text(row: Row) -> Row:
        return {**row, "Findings_EN": "Not given."} if row["VolumeName"] == B1 else row

    rewrite(tree.reports_path("train"), without_text)
    rewrite(tree.metadata_path("train"), lambda row: {**row, "RescaleSlope": "one"})
    assert names(tree) == []
    assert reasons(tree) == {A1: "E_METADATA", A2: "E_METADATA", B1: "E_METADATA"}
    rewrite(tree.metadata_path("train"), lambda row: {**row, "RescaleSlope": "1"})
    assert reasons(tree) == {B1: "E_EMPTY_REPORT"}


def test_missing_volumes(tree: CtRateTree) -> None:
    tree.volume_path(A2, "v2").unlink()
    tree.volume_path(B1, "v2").unlink()
    assert names(tree) == [A1]  # another reconstruction of the scan is there
    assert reasons(tree) == {B1: "E_MISSING"}


def test_volumes_without_report(tree: CtRateTree) -> None:
    stray = tree.volume_path(B1, "v2").with_name("train_9_a_1.nii.gz")
    stray.touch()
    stray.with_name("my scan.nii").touch()
    assert reasons(tree) == {"train_9_a_1.nii.gz": "E_NO_REPORT", "my scan.nii": "E_NO_REPORT"}


def test_misnamed_volume_in_the_reports(tree: CtRateTree) -> None:
    rewrite(
        tree.reports_path("train"),
        lambda row: {**row, "VolumeName": "scan7"} if row["VolumeName"] == B1 else row,
    )
    assert reasons(tree) == {"scan7": "E_VOLUME_NAME", B1: "E_NO_REPORT"}


def test_folder_without_reports(tmp_path: Path) -> None:
    with refusal("E_MISSING", "must hold CT-RATE's reports"):
        list_source(tmp_path, 1.5)


def row(z_mm: float | None, kernel: str, num_slices: int = 200) -> VolumeMetadata:
    spacing = None if z_mm is None else (0.7, 0.7, z_mm)
    return VolumeMetadata(spacing, 1.0, -1024.0, None, None, kernel, num_slices)


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (row(3.0, "B31f"), row(1.0, "B70f"), 2),  # thin before soft
        (row(1.0, "B70f"), row(1.5, "B31f"), 2),  # both thin enough: soft wins
        (row(1.0, "B"), row(1.0, "YA"), 1),
        (row(1.0, "B31f", 100), row(1.0, "B31f", 300), 2),
        (row(1.0, "B31f"), row(1.0, "B31f"), 1),
        (row(None, "B31f"), row(5.0, "B70f"), 2),
        (None, row(5.0, "B70f"), 2),
    ],
)
def test_rule(first: VolumeMetadata | None, second: VolumeMetadata, chosen: int) -> None:
    names = ["train_1_a_1.nii.gz", "train_1_a_2.nii.gz"]
    metadata = {name: one for name, one in zip(names, (first, second), strict=True) if one}
    assert choose_reconstructions(metadata, names, 1.5) == [names[chosen - 1]]


def test_one_per_scan_in_natural_order() -> None:
    names = [
        "train_10_a_1.nii.gz",
        "train_2_b_2.nii.gz",
        "train_2_b_1.nii.gz",
        "train_2_a_1.nii.gz",
    ]
    assert choose_reconstructions({}, names, 1.5) == [
        "train_2_a_1.nii.gz",
        "train_2_b_1.nii.gz",
        "train_10_a_1.nii.gz",
    ]
    assert sorted(["valid_1_a_1.nii.gz", "train_3_a_1.nii.gz"], key=natural_order)[0] == (
        "train_3_a_1.nii.gz"
    )


@pytest.mark.parametrize(
    ("soft", "sharp"),
    [
        ("B31f", "B70f"),
        ("['Br36d', '3']", "['Bl57d', '3']"),
        ("FC08", "FC52"),
        ("STANDARD", "LUNG"),
        ("SOFT", "BONEPLUS"),
        ("A", "L"),
        ("B", "YC"),
        ("C", "D"),
    ],
)
def test_kernels(soft: str, sharp: str) -> None:
    assert kernel_sharpness(soft) < kernel_sharpness(sharp)


def test_unknown_kernel_is_in_the_middle() -> None:
    assert kernel_sharpness("Qwerty") == kernel_sharpness("") == 0.5
