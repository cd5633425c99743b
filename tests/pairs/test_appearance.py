from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctscribe.config import PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.pairs.appearance import appearances
from ctscribe.pairs.audit import audit_pairs
from ctscribe.pairs.build import build_training_pairs
from ctscribe.rows import StudyRow, write_rows
from ctscribe.slices.cache import write_frames

Make = Callable[..., StudyRow]


def write(folder: Path, study: StudyRow, seed: int, brightness: int = 100, noise: int = 4) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(brightness - noise, brightness + noise, (4, 28, 28, 3))
    write_frames(folder, study.volume_name, frames.astype(np.uint8), {})


def nearest_to_first(folder: Path, studies: list[StudyRow]) -> int:
    rows = appearances(folder, studies)
    return 1 + int(np.linalg.norm(rows[1:] - rows[0], axis=1).argmin())


@pytest.mark.parametrize(
    ("knob", "alike", "other"),
    [
        ("manufacturer", "X", "Y"),
        ("sex", "F", "M"),
        ("age_years", 61.0, 24.0),
        ("spacing_mm", (1.0, 1.0, 1.0), (0.6, 0.6, 1.0)),
        ("position_mm", (7.0, 5.0, 3.0, 1.0), (70.0, 50.0, 30.0, 10.0)),
    ],
)
def test_what_prepare_knows_of_scan_and_patient_counts(
    tmp_path: Path, make_study: Make, knob: str, alike: object, other: object
) -> None:
    values = (alike, other, alike, other)
    studies = [
        make_study(f"s{n}").model_copy(update={knob: value}) for n, value in enumerate(values)
    ]
    for study in studies:
        write(tmp_path, study, seed=0)
    assert nearest_to_first(tmp_path, studies) == 2


@pytest.mark.parametrize(("knob", "values"), [("brightness", (80, 160)), ("noise", (3, 30))])
def test_what_the_frames_show_counts(
    tmp_path: Path, make_study: Make, knob: str, values: tuple[int, int]
) -> None:
    studies = [make_study(f"s{n}") for n in range(4)]
    for n, study in enumerate(studies):
        write(tmp_path, study, seed=n, **{knob: values[n % 2]})
    assert nearest_to_first(tmp_path, studies) == 2


def test_the_unknown_lies_in_the_middle(tmp_path: Path, make_study: Make) -> None:
    ages = (20.0, None, 80.0)
    studies = [make_study(f"s{n}").model_copy(update={"age_years": a}) for n, a in enumerate(ages)]
    for study in studies:
        write(tmp_path, study, seed=0)
    rows = appearances(tmp_path, studies)
    assert np.isfinite(rows).all()
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(np.linalg.norm(rows[2] - rows[1]))


def test_hard_pairs_show_the_nearest_other_patients(tmp_path: Path, make_study: Make) -> None:
    ill = (1,) + (0,) * 17
    names = [f"train_{n}_a_1.nii.gz" for n in range(20)]
    studies = [make_study(name, ill if n % 2 else (0,) * 18) for n, name in enumerate(names)]
    write_rows(tmp_path / "studies.jsonl", studies)
    for n, study in enumerate(studies):
        write(tmp_path, study, seed=0, brightness=40 + 10 * (n // 2))
    config = PairsConfig(strategy="hard", num_alternatives=2, validation_fraction=0.01)
    rows = build_training_pairs(tmp_path, tmp_path, config)
    number = {name: n for n, name in enumerate(names)}
    for row in rows[1::2]:
        assert row.alternatives is not None
        assert row.volume in row.alternatives
        assert row.label_distance == 1
        own = number[row.study]
        assert all(number[other] % 2 != own % 2 for other in row.alternatives)
        assert abs(number[row.alternatives[0]] // 2 - own // 2) <= 1


def test_hard_pairs_are_balanced_where_there_are_partners_of_both_kinds(
    tmp_path: Path, cohort: list[StudyRow]
) -> None:
    write_rows(tmp_path / "studies.jsonl", cohort)
    for study in cohort:
        write(tmp_path, study, seed=0)
    num = {study.volume_name: sum(study.labels or ()) for study in cohort}
    shares = {}
    for direction in ("any", "balanced"):
        config = PairsConfig.model_validate({"strategy": "hard", "direction": direction})
        rows = build_training_pairs(tmp_path, tmp_path, config)
        audit = audit_pairs(cohort, rows)
        shares[direction] = audit["direction"]["sicker"]
        assert audit["num_balanced"] == sum(row.balanced for row in rows)
        for row in rows[1::2]:
            signs = {np.sign(num[other] - num[row.study]) for other in row.alternatives or ()}
            assert row.balanced == (direction == "balanced" and len(signs) == 2)
    assert shares["any"] < 0.35
    assert 0.4 < shares["balanced"] < 0.6


def test_patients_who_are_all_alike_have_no_hard_negative(tmp_path: Path, make_study: Make) -> None:
    studies = [make_study(f"train_{n}_a_1.nii.gz") for n in range(3)]
    write_rows(tmp_path / "studies.jsonl", studies)
    for study in studies:
        write(tmp_path, study, seed=0)
    with pytest.raises(CtscribeError, match="another patient whose labels differ"):
        build_training_pairs(tmp_path, tmp_path, PairsConfig(strategy="hard"))
