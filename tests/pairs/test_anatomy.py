import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.config import PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.pairs.anatomy import healed_study, plan_healing, shown_study, write_healed
from ctscribe.pairs.build import build_training_pairs
from ctscribe.pairs.dataset import pair_up, strategy_of
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import Healing, Lesion, PairRow, StudyRow, TruthRow, read_rows, write_rows
from ctscribe.slices.cache import frames_path, read_frames, write_frames
from ctscribe.slices.where import Place
from ctscribe.types import BoxMm, Frames

NODULE: BoxMm = ((20.0, 20.0, 2.0), (26.0, 26.0, 4.0))
"""Columns and rows 20–26, slices 2–4 of frames with 1 mm pixels: seen in slices 3 (and 1 or 5)."""
LONG: BoxMm = ((4.0, 4.0, 0.0), (50.0, 12.0, 8.0))
AROUND: BoxMm = ((18.0, 18.0, 0.0), (28.0, 30.0, 8.0))
HIDDEN: BoxMm = ((20.0, 20.0, 3.6), (26.0, 26.0, 4.4))
"""Between slices 3 and 5."""


def labels_of(*findings: str) -> tuple[int, ...]:
    return tuple(int(finding in findings) for finding in FINDINGS)


@pytest.fixture
def study(make_study: Callable[..., StudyRow]) -> StudyRow:
    return make_study("train_1_a_1.nii.gz", labels_of("Lung nodule", "Consolidation"))


@pytest.fixture
def frames() -> Frames:
    """Four slices of noisy lung in a frame of wall, a bright nodule in slice 3 (frame 2)."""
    rng = np.random.default_rng(0)
    grey = np.full((4, 56, 56), 130.0)
    grey[:, 4:52, 4:52] = 25
    grey[2, 20:27, 20:27] = 180
    noisy = np.clip(grey + rng.normal(0, 4, grey.shape), 0, 255).astype(np.uint8)
    return np.repeat(noisy[..., None], 3, axis=3)


def test_small_stated_lesions_with_lung_around_are_healed(study: StudyRow, frames: Frames) -> None:
    found = plan_healing(study, [Place("Lung nodule", NODULE)], frames, 40.0)
    assert found == (("Lung nodule",), Healing(boxes_mm=(NODULE,)))


@pytest.mark.parametrize(
    ("places", "max_mm"),
    [
        # larger than wanted
        ([Place("Lung nodule", NODULE)], 5.0),
        # no frame shows it, so that nothing would change
        ([Place("Lung nodule", HIDDEN)], 40.0),
        # a second nodule is too large, and would go on showing what the report states
        (
            [
                Place("Lung nodule", NODULE),
                Place("Lung nodule", LONG),
            ],
            40.0,
        ),
        # the report does not state it
        ([Place("Lung opacity", NODULE)], 40.0),
        # lies in the wall
        ([Place("Lung nodule", ((0.0, 0.0, 2.0), (5.0, 5.0, 4.0)))], 40.0),
        # no outline to fill
        ([Place("Pleural effusion", NODULE)], 40.0),
        # outside the frame
        ([Place("Lung nodule", ((-40.0, -40.0, 2.0), (-30.0, -30.0, 4.0)))], 40.0),
        # lies inside a consolidation that is too large to be healed and would lose a part
        (
            [
                Place("Lung nodule", NODULE),
                Place("Consolidation", AROUND),
            ],
            9.0,
        ),
        ([], 40.0),
    ],
)
def test_what_cannot_be_healed_is_left(
    study: StudyRow, frames: Frames, places: list[Place], max_mm: float
) -> None:
    assert plan_healing(study, places, frames, max_mm) is None


def test_other_lesions_are_avoided_and_large_ones_do_not_forbid(
    study: StudyRow, frames: Frames
) -> None:
    large: BoxMm = ((6.0, 6.0, 0.0), (50.0, 50.0, 8.0))
    places = [Place("Lung nodule", NODULE), Place("Consolidation", large)]
    found = plan_healing(study, places, frames, 20.0)
    assert found == (("Lung nodule",), Healing(boxes_mm=(NODULE,), avoided_mm=(large,)))


def negative(study: StudyRow, healing: Healing) -> PairRow:
    name = study.volume_name
    return PairRow(study=name, role="negative", volume=name, healing=healing)


def test_healed_frames_lie_beside_the_studys_and_follow_them(
    tmp_path: Path, study: StudyRow, frames: Frames
) -> None:
    row = negative(study, Healing(boxes_mm=(NODULE,)))
    studies = {study.volume_name: study}
    write_frames(tmp_path, study.volume_name, frames, {})
    (healed,) = write_healed(tmp_path, studies, [row])
    assert healed == shown_study(studies, row)
    assert healed.patient_id == study.patient_id
    seen = read_frames(tmp_path, healed.volume_name)
    assert seen[2, 20:27, 20:27].max() < 100
    assert frames[2, 20:27, 20:27].min() > 150
    assert np.array_equal(seen[0], frames[0])
    assert np.array_equal(read_frames(tmp_path, study.volume_name), frames)

    path = frames_path(tmp_path, healed.volume_name)
    before = path.stat().st_mtime_ns
    write_healed(tmp_path, studies, [row])
    assert path.stat().st_mtime_ns == before, "frames that are there are not made again"
    write_frames(tmp_path, study.volume_name, 255 - frames, {})
    write_healed(tmp_path, studies, [row])
    assert not np.array_equal(read_frames(tmp_path, healed.volume_name), seen)


def test_another_recipe_has_another_name(study: StudyRow) -> None:
    first = healed_study(study, Healing(boxes_mm=(NODULE,)))
    second = healed_study(study, Healing(boxes_mm=(HIDDEN,)))
    assert len({study.volume_name, first.volume_name, second.volume_name}) == 3


def lesion(finding: str, box: BoxMm) -> Lesion:
    return Lesion(
        finding=finding,
        box_mm=box,
        size_mm=6.0,
        side="right",
        lobe=None,
        slices=(2, 4),
        sentence="A nodule.",
    )


@pytest.mark.parametrize("unhealed", ["alone", "heter"])
def test_studies_without_a_lesion_stand_alone_or_are_shown_another_patient(
    tmp_path: Path,
    make_study: Callable[..., StudyRow],
    frames: Frames,
    unhealed: str,
) -> None:
    ill, well = labels_of("Lung nodule"), labels_of(*FINDINGS[:8])
    studies = [make_study(f"train_{n}_a_1.nii.gz", ill if n % 2 else well) for n in range(12)]
    write_rows(tmp_path / "studies.jsonl", studies)
    for one in studies:
        write_frames(tmp_path, one.volume_name, frames, {})
    truth = [
        TruthRow(volume_name=s.volume_name, scan_id="s", lesions=(lesion("Lung nodule", NODULE),))
        for s in studies
        if s.labels == ill
    ]
    write_rows(tmp_path / "truth.jsonl", truth)
    config = PairsConfig.model_validate(
        {"strategy": "anatomy", "unhealed": unhealed, "min_label_distance": 5}
    )
    rows = build_training_pairs(tmp_path, tmp_path / "out", config, tmp_path / "truth.jsonl")
    assert read_rows(tmp_path / "out" / "pairs.jsonl", PairRow) == rows
    assert strategy_of(rows) == "anatomy"
    by_name = {s.volume_name: s for s in studies}
    kinds = set()
    for positive, beside in pair_up(rows):
        own = by_name[positive.study]
        if own.labels == ill:
            assert beside is not None
            assert beside.volume == own.volume_name
            assert beside.disputed == ("Lung nodule",)
            kinds.add("healed")
        elif unhealed == "alone":
            assert beside is None
            kinds.add("alone")
        else:
            assert beside is not None
            assert beside.volume is not None
            assert by_name[beside.volume].patient_id != own.patient_id
            kinds.add("heter")
    assert kinds == {"healed", unhealed}


NAME = "train_2_a_1.nii.gz"


def write_mask(path: Path, *, stacked: bool = False) -> None:
    """`NODULE` on a grid of 1 mm, alone or as the second of two masks."""
    path.parent.mkdir(parents=True)
    mask = np.zeros((56, 56, 8), np.uint8)
    mask[20:27, 20:27, 2:5] = 1
    values = np.stack([np.zeros_like(mask), mask]) if stacked else mask
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def as_truth(folder: Path) -> Path:
    row = TruthRow(volume_name=NAME, scan_id="s", lesions=(lesion("Lung nodule", NODULE),))
    write_rows(folder / "truth.jsonl", [row])
    return folder / "truth.jsonl"


def as_table(folder: Path) -> Path:
    write_mask(folder / "masks" / "any.nii.gz")
    table = folder / "where.csv"
    table.write_text(f"volume,finding,mask\n{NAME},Lung nodule,masks/any.nii.gz\n")
    return table


def as_manifest(folder: Path) -> Path:
    write_mask(folder / "masks" / "lung nodule.nii.gz")
    (folder / NAME).touch()
    manifest = folder / "scans.csv"
    manifest.write_text(f"volume,patient,scan,report,masks\n{NAME},2,{NAME},A nodule.,masks\n")
    return manifest


def as_folders(folder: Path) -> Path:
    write_mask(folder / "masks" / "train_2_a_1" / "Lung_nodule.nii.gz")
    return folder / "masks"


def as_sentences(folder: Path) -> Path:
    write_mask(folder / "masks" / "all" / NAME, stacked=True)
    findings = {"0": "The heart is enlarged.", "1": "There is a lung nodule."}
    listed = {"train": [{"name": NAME, "findings": findings}]}
    (folder / "masks" / "dataset.json").write_text(json.dumps(listed))
    return folder / "masks"


@pytest.mark.parametrize("form", [as_truth, as_table, as_manifest, as_folders, as_sentences])
def test_lesions_are_healed_whatever_tells_of_them(
    tmp_path: Path,
    make_study: Callable[..., StudyRow],
    frames: Frames,
    form: Callable[[Path], Path],
) -> None:
    write_rows(tmp_path / "studies.jsonl", [make_study(NAME, labels_of("Lung nodule"))])
    write_frames(tmp_path, NAME, frames, {})
    (tmp_path / "own").mkdir()
    config = PairsConfig(strategy="anatomy")
    _, beside = build_training_pairs(tmp_path, tmp_path, config, form(tmp_path / "own"))
    assert beside.healing == Healing(boxes_mm=(NODULE,))
    assert beside.disputed == ("Lung nodule",)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("volume,finding,mask\n1,Lung nodules,a.nii.gz\n", "E_WHERE"),
        ("volume,finding,mask\n1,Lung nodule,a.nii.gz\n", "E_MASK"),
        (None, "E_MISSING"),
    ],
)
def test_what_tells_of_no_lesions_is_refused(
    tmp_path: Path, make_study: Callable[..., StudyRow], content: str | None, code: str
) -> None:
    write_rows(tmp_path / "studies.jsonl", [make_study(NAME, labels_of("Lung nodule"))])
    where = tmp_path / "where.csv"
    if content is not None:
        where.write_text(content)
    with pytest.raises(CtscribeError, match=code):
        build_training_pairs(tmp_path, tmp_path, PairsConfig(strategy="anatomy"), where)


def test_without_boxes_nothing_is_healed_and_that_is_said(
    tmp_path: Path, make_study: Callable[..., StudyRow], frames: Frames
) -> None:
    study = make_study(NAME, labels_of("Lung nodule"))
    write_rows(tmp_path / "studies.jsonl", [study])
    write_frames(tmp_path, study.volume_name, frames, {})
    config = PairsConfig(strategy="anatomy")
    with pytest.raises(CtscribeError, match="pass --where"):
        build_training_pairs(tmp_path, tmp_path, config)
    truth = tmp_path / "truth.jsonl"
    write_rows(truth, [TruthRow(volume_name=study.volume_name, scan_id="s", lesions=())])
    with pytest.raises(CtscribeError, match="none of 1 has one"):
        build_training_pairs(tmp_path, tmp_path, config, truth)
