import pytest

from ctscribe.base.rows import StudyRow
from ctscribe.data.splits import split_of, studies_of


def test_source_validation_set_is_the_test_split() -> None:
    assert all(split_of(f"valid_{n}", "valid", 0.4) == "test" for n in range(50))


# The first 16 digits of `printf train_1 | sha256sum`, as a share of 16^16, are 0.025, and so on.
@pytest.mark.parametrize(
    ("patient", "fraction", "split"),
    [
        ("train_1", 0.1, "validation"),
        ("train_1", 0.02, "train"),
        ("train_2", 0.1, "train"),
        ("train_2", 0.499, "validation"),
        ("train_53", 0.38, "validation"),
        ("train_53", 0.379, "train"),
    ],
)
def test_splits_never_change_between_releases(patient: str, fraction: float, split: str) -> None:
    assert split_of(patient, "train", fraction) == split


def test_share_held_out_is_near_the_fraction_asked_for() -> None:
    held_out = sum(split_of(f"train_{n}", "train", 0.1) == "validation" for n in range(20_000))
    assert 0.09 < held_out / 20_000 < 0.11


def test_a_larger_fraction_only_adds_patients() -> None:
    names = [f"train_{n}" for n in range(2000)]
    small = {name for name in names if split_of(name, "train", 0.1) == "validation"}
    large = {name for name in names if split_of(name, "train", 0.2) == "validation"}
    assert small < large


def test_studies_of_keeps_order_and_partitions(cohort: list[StudyRow]) -> None:
    parts = [studies_of(cohort, split, 0.3) for split in ("train", "validation", "test")]
    assert [len(part) > 0 for part in parts] == [True, True, False]
    assert sorted(parts[0] + parts[1], key=cohort.index) == cohort
    patients = [{study.patient_id for study in part} for part in parts]
    assert not patients[0] & patients[1]
