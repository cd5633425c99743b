import pytest

from ctscribe.data.listing import choose_reconstructions, natural_order
from ctscribe.scan.metadata import VolumeMetadata, kernel_sharpness


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
