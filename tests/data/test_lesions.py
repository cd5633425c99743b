import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import Lesion, TruthRow, write_rows
from ctscribe.data.lesions import Place, read_where
from tests.refusals import refusal

NODULE, EFFUSION = "Lung nodule", "Pleural effusion"
BOX = ((1.0, 1.0, 1.0), (2.0, 3.0, 1.0))


def write_mask(path: Path, masks: int = 0) -> None:
    """One mask with a lesion in `BOX`, or several along a fourth axis with it in the last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[1:3, 1:4, 1] = 1
    stack = [np.zeros_like(mask)] * (masks - 1) + [mask]
    nib.save(nib.Nifti1Image(np.stack(stack) if masks else mask, np.eye(4)), path)


def test_a_phantoms_truth(tmp_path: Path) -> None:
    lesion = Lesion(
        finding=NODULE,
        box_mm=BOX,
        size_mm=3,
        side="left",
        lobe=None,
        slices=(1, 1),
        sentence="A nodule.",
    )
    rows = [
        TruthRow(volume_name="train_1_a_1.nii.gz", scan_id="train_1_a", lesions=(lesion,)),
        TruthRow(volume_name="train_2_a_1.nii.gz", scan_id="train_2_a", lesions=()),
    ]
    write_rows(tmp_path / "truth.jsonl", rows)
    found = read_where(tmp_path / "truth.jsonl")
    assert found == {"train_1_a_1": (Place(NODULE, BOX),), "train_2_a_1": ()}


def test_own_data_in_a_table(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "1.nii.gz")
    (tmp_path / "where.csv").write_text(
        "volume,finding,mask\n0001,Lung nodule,masks/1.nii.gz\n"
        "0001,pleural effusion,masks/1.nii.gz\n"
    )
    found = read_where(tmp_path / "where.csv")
    assert found == {"0001": (Place(NODULE, BOX), Place(EFFUSION, BOX))}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_own_data_in_a_manifest(tmp_path: Path, suffix: str) -> None:
    write_mask(tmp_path / "masks" / "1" / "Lung_nodule.nii.gz")
    write_mask(tmp_path / "masks" / "1" / "heart.nii.gz")  # an organ, no finding
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nii").touch()
    rows = [
        {"volume": "a.nii", "patient": "1", "scan": "A 1", "report": "x", "masks": "masks/1"},
        {"volume": "b.nii", "patient": "2", "scan": "B", "report": "x", "masks": ""},
    ]
    lines = [json.dumps(row) for row in rows]
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (tmp_path / f"scans{suffix}").write_text("\n".join(lines))
    assert read_where(tmp_path / f"scans{suffix}") == {"A-1": (Place(NODULE, BOX),)}


def test_folders_of_masks_named_after_findings(tmp_path: Path) -> None:
    write_mask(tmp_path / "train_1_a_1" / "lung_nodule.nii.gz")
    write_mask(tmp_path / "train_1_a_1" / "left lung.nii.gz")  # an organ, no finding
    (tmp_path / "train_2_a_1").mkdir()
    found = read_where(tmp_path)
    assert found == {"train_1_a_1": (Place(NODULE, BOX),), "train_2_a_1": ()}


def test_one_mask_per_sentence(tmp_path: Path) -> None:
    write_mask(tmp_path / "segmentations" / "train_1_a_1.nii.gz", masks=2)
    listed = {
        "train": [
            {
                "name": "train_1_a_1.nii.gz",
                "findings": {"0": "Cardiomegaly is seen.", "1": "There is a 6 mm lung nodule."},
            },
            {"name": "train_9_a_1.nii.gz", "findings": {"0": "Not downloaded."}},
        ]
    }
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    assert read_where(tmp_path) == {"train_1_a_1": (Place(NODULE, BOX),)}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("where.csv", "volume,mask\n1,a.nii.gz\n", "E_WHERE"),
        ("where.csv", "volume,finding,mask\n1,Lung nodules,a.nii.gz\n", "E_WHERE"),
        ("where.csv", "volume,finding,mask\n1,Lung nodule,a.nii.gz\n", "E_MASK"),
        ("where.csv", "volume,finding,mask\n", "E_WHERE"),
        ("where.csv", "volume,finding,mask\n1,Lung nodule\n", "E_WHERE"),
        ("where.csv", "volume,finding,mask\n,Lung nodule,a.nii.gz\n", "E_WHERE"),
        ("where.csv", 'volume,finding,mask\n1,"Lung nodule"s,a.nii.gz\n', "E_WHERE"),
        ("where.txt", "", "E_WHERE"),
        ("where.jsonl", "{}\n", "E_ROW"),
        ("folder/dataset.json", '{"train": [{"name": "a.nii.gz"}]}', "E_WHERE"),
        ("folder/dataset.json", '{"train": 3}', "E_WHERE"),
        ("folder/dataset.json", "[]", "E_WHERE"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, name: str, content: str, code: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(CtscribeError, match=code):
        read_where(path.parent if path.name == "dataset.json" else path)


def test_a_table_in_another_encoding_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "where.csv").write_bytes("volume,finding,mask\nGöğüs,a,b\n".encode("cp1254"))
    with refusal("E_ENCODING", "line 2 holds the byte 0xF6"):
        read_where(tmp_path / "where.csv")


def test_masks_must_be_as_many_as_sentences(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.nii.gz", masks=3)
    listed = {"train": [{"name": "a.nii.gz", "findings": {"0": "A lung nodule."}}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(CtscribeError, match=r"must hold 1 masks.*holds 3.*E_MASK"):
        read_where(tmp_path)


@pytest.mark.parametrize("masks", [0, 1])
def test_a_damaged_mask_is_told_with_its_volume_and_no_path(tmp_path: Path, masks: int) -> None:
    folder = tmp_path / "SURNAME" / "train_1_a_1"
    name = "train_1_a_1.nii.gz" if masks else "lung_nodule.nii.gz"
    write_mask(folder / name, masks)
    listed = {"train": [{"name": name, "findings": {"0": "A lung nodule."}}]}
    if masks:
        (folder.parent / "dataset.json").write_text(json.dumps(listed))
    assert read_where(folder.parent) == {"train_1_a_1": (Place(NODULE, BOX),)}
    packed = bytearray((folder / name).read_bytes())
    packed[-8] ^= 1  # the first byte of its CRC-32
    (folder / name).write_bytes(packed)
    with refusal("E_MASK", "its bytes were altered") as caught:
        read_where(folder.parent)
    assert str(caught.value).startswith(f"{name} of train_1_a_1 must ")
    assert "SURNAME" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match="E_MISSING"):
        read_where(tmp_path / "absent")


def test_masks_outside_the_tables_folder_are_refused_unless_allowed(tmp_path: Path) -> None:
    write_mask(tmp_path / "1.nii.gz")
    (tmp_path / "in").mkdir()
    for mask in ("../1.nii.gz", tmp_path / "1.nii.gz"):
        (tmp_path / "in" / "where.csv").write_text(f"volume,finding,mask\n1,Lung nodule,{mask}\n")
        with refusal("E_WHERE", "row 2 names a mask outside its folder"):
            read_where(tmp_path / "in" / "where.csv")
        found = read_where(tmp_path / "in" / "where.csv", allow_outside=True)
        assert found == {"1": (Place(NODULE, BOX),)}
