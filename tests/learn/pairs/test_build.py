import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import PairRow, StudyRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.build import build_pairs, build_training_pairs, noise_seeds
from ctscribe.text.findings import FINDINGS
from tests.refusals import refusal
from tests.studies import random_frames, study_row, write_prepared


def test_origin_has_positives_only(cohort: list[StudyRow]) -> None:
    rows = build_pairs(cohort, PairsConfig(strategy="origin"))
    assert [row.study for row in rows] == [study.volume_name for study in cohort]
    assert all(row.role == "positive" and row.volume == row.study for row in rows)


def test_gauss_follows_each_positive_with_seeded_noise(cohort: list[StudyRow]) -> None:
    rows = build_pairs(cohort, PairsConfig(strategy="gauss"))
    positives, negatives = rows[::2], rows[1::2]
    assert [row.study for row in positives] == [row.study for row in negatives]
    assert {(row.role, row.volume, row.disputed) for row in negatives} == {("negative", None, None)}
    assert len({row.noise_seed for row in negatives}) == len(cohort)


def test_noise_seeds_depend_on_name_and_seed_alone() -> None:
    both = noise_seeds(["a", "b"], 0)
    assert noise_seeds(["b"], 0) == both[1:]
    assert both[0] != both[1]
    assert noise_seeds(["a"], 1) != both[:1]
    assert all(0 <= seed < 2**31 for seed in both)


def test_heter_shows_another_patient_and_records_the_distance(cohort: list[StudyRow]) -> None:
    by_name = {study.volume_name: study for study in cohort}
    rows = build_pairs(cohort, PairsConfig(strategy="heter"))
    assert [row.study for row in rows[::2]] == [study.volume_name for study in cohort]
    for row in rows[1::2]:
        assert row.volume is not None
        own, other = by_name[row.study], by_name[row.volume]
        assert own.labels is not None
        assert other.labels is not None
        assert own.patient_id != other.patient_id
        distance = sum(a != b for a, b in zip(own.labels, other.labels, strict=True))
        assert row.label_distance == distance >= 10 - row.relaxed_by
        assert row.disputed == tuple(
            name for name, a, b in zip(FINDINGS, own.labels, other.labels, strict=True) if a != b
        )


def test_draws_do_not_depend_on_the_order_of_the_studies(cohort: list[StudyRow]) -> None:
    def negatives(studies: list[StudyRow]) -> dict[str, PairRow]:
        return {
            row.study: row
            for row in build_pairs(studies, PairsConfig(strategy="heter", seed=3))[1::2]
        }

    assert negatives(cohort) == negatives(cohort[::-1])


def test_mutual_partners_stand_in_the_rows_as_others_do(cohort: list[StudyRow]) -> None:
    studies = cohort[::-5]
    rows = build_pairs(studies, PairsConfig(strategy="heter", mutual=True, min_label_distance=2))
    negatives = {row.study: row for row in rows[1::2]}
    assert [row.study for row in rows[::2]] == [study.volume_name for study in studies]
    assert [*negatives] == [row.study for row in rows[::2]]
    mutual = [row for row in negatives.values() if negatives[str(row.volume)].volume == row.study]
    assert len(mutual) == len(studies)
    assert all(row.disputed == negatives[str(row.volume)].disputed for row in mutual)
    assert all(row.label_distance == len(row.disputed or ()) >= 2 for row in mutual)


def test_a_study_without_labels_is_named(cohort: list[StudyRow]) -> None:
    with pytest.raises(CtscribeError, match=r"train_9_z_1\.nii\.gz has none.*gauss"):
        build_pairs([*cohort, study_row("train_9_z_1.nii.gz")], PairsConfig(strategy="heter"))


def test_training_pairs_stay_inside_the_training_split(
    tmp_path: Path, cohort: list[StudyRow]
) -> None:
    prepared = write_prepared(tmp_path, cohort)
    number = build_training_pairs(prepared, tmp_path / "out", PairsConfig(strategy="heter"))
    rows = read_rows(tmp_path / "out" / "pairs.jsonl", PairRow)
    training = [study for study in cohort if study.split == "train"]
    assert rows == build_pairs(training, PairsConfig(strategy="heter"))
    assert number == len(rows)
    named = {name for row in rows for name in (row.study, row.volume) if name}
    assert {prepared.by_name[name].split for name in named} == {"train"}
    assert 0 < len(rows) // 2 < len(cohort)


def test_an_empty_training_split_is_refused(tmp_path: Path, cohort: list[StudyRow]) -> None:
    tested = [
        study.model_copy(update={"source_split": "valid", "split": "test"}) for study in cohort
    ]
    prepared = write_prepared(tmp_path, tested)
    with pytest.raises(CtscribeError, match="training split must have studies"):
        build_training_pairs(prepared, tmp_path, PairsConfig())


def test_reports_and_rows_are_not_held(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [tuple(row) for row in rng.integers(0, 2, (400, 4)).tolist()]
    studies = [
        study_row(
            f"train_{n}_a_1.nii.gz", split="train", labels=row + (0,) * 14, findings="x" * 20_000
        )
        for n, row in enumerate(labels)
    ]
    prepared = write_prepared(tmp_path, studies)
    config = PairsConfig(strategy="gauss")
    build_training_pairs(prepared, tmp_path, config)  # what is loaded once is not counted
    tracemalloc.start()
    build_training_pairs(Prepared(tmp_path), tmp_path, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "studies.jsonl").stat().st_size / 8


def test_hard_partners_do_not_depend_on_the_order_of_the_studies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    studies = [
        study_row(f"train_{n}_a_1.nii.gz", labels=tuple(rng.integers(0, 2, 18).tolist()))
        for n in range(12)
    ]
    prepared = write_prepared(tmp_path, studies, frames=random_frames(12, (4, 28, 28, 3)))
    config = PairsConfig(strategy="hard", num_alternatives=3)
    rows = build_pairs(studies, config, prepared)
    again = build_pairs(studies[::-1], config, prepared)
    assert [row.study for row in again[::2]] == [study.volume_name for study in studies[::-1]]
    assert {row.study: row for row in again[1::2]} == {row.study: row for row in rows[1::2]}


def test_studies_without_reports_make_no_pairs(tmp_path: Path) -> None:
    bare = [
        study_row(f"train_{n}_a_1.nii.gz", findings="", labels=None, split="train")
        for n in range(3)
    ]
    for studies in (bare, [row.model_copy(update={"split": "validation"}) for row in bare]):
        prepared = write_prepared(tmp_path, studies)
        with refusal("E_NO_REPORT", "3 of 3 in .* were prepared without"):
            build_training_pairs(prepared, tmp_path, PairsConfig(strategy="gauss"))
        with refusal("E_NO_REPORT", "training and scoring need the report"):
            prepared.scans("train")
    assert prepared.scans("validation", reported=False) == prepared.studies
