"""Tables of another encoder: taken in as they are, in the order of frames, or refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes
from safetensors.torch import load_file, save_file

from ctscribe.base.files import read_json
from ctscribe.base.rows import FEATURE_TABLES, FeatureTableRow, read_rows, write_rows
from ctscribe.cli.app import app
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.encoder_tables import import_tables
from ctscribe.learn.model.feature_store import EncoderStore, find_encoder, open_encoder
from tests.damage import flip_bit
from tests.encoders import Rows, as_rows, write_tables
from tests.refusals import refusal
from tests.scans import ORIENTATIONS
from tests.studies import study_row, write_prepared

NAMES = [f"train_{number}_a_1.nii.gz" for number in range(3)]
GRID, WIDTH = (5, 2, 3), 8
FALLING = tuple(100.0 - 20 * plane for plane in range(GRID[0]))
AFFINE: Rows = ((0, 0, -30, 9), (0, -30, 0, 5), (-20, 0, 0, 100), (0, 0, 0, 1))
"""Planes to the feet, rows to the back, columns to the left: as frames."""


def table(number: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(*GRID, WIDTH, generator=generator).to(dtype)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return write_prepared(tmp_path / "prepared", [study_row(name) for name in NAMES])


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    written = {name: table(number) for number, name in enumerate(NAMES)}
    write_tables(tmp_path / "tables", written, dict.fromkeys(NAMES, AFFINE), [table(9)])
    return tmp_path / "tables"


def opened(prepared: Prepared) -> EncoderStore:
    """As another process opens it."""
    return open_encoder(prepared, find_encoder(prepared, "e"), prepared.studies)


def test_every_format_is_taken_in_as_it_is(prepared: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    halves = [table(0, torch.float16), table(1, torch.bfloat16), table(2)]
    np.save(folder / "0.npy", halves[0].flatten(0, 2).numpy())
    save_file({"other": halves[1]}, folder / "1.safetensors")
    save_file({"features": halves[2], "more": torch.zeros(1)}, folder / "2.safetensors")
    files = ["0.npy", "1.safetensors", "2.safetensors"]
    rows: list[dict[str, Any]] = [
        {"volume_name": "train_0_a_1", "file": files[0], "grid": GRID, "plane_mm": FALLING},
        {"volume_name": NAMES[1], "file": files[1], "grid": GRID, "plane_mm": FALLING[::-1]},
        {"volume_name": NAMES[2], "file": files[2], "grid": GRID, "affine": AFFINE},
        {"volume_name": "train_9_a_1", "file": files[2], "grid": GRID, "affine": AFFINE},
    ]
    rows[3]["file"] = "9.npy"
    write_rows(folder / FEATURE_TABLES, [FeatureTableRow.model_validate(row) for row in rows])
    told: list[tuple[int, int]] = []
    found = import_tables(prepared, folder, "e", progress=lambda *done: told.append(done))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (found.num_not_prepared, found.num_without_cells, found.num_noise) == (1, 2, 0)
    store = opened(prepared)
    expected = [halves[0], halves[1].flip(0), halves[2]]
    for study, features in zip(prepared.studies, expected, strict=True):
        visual = store.visual(study)
        assert visual.visual_tokens is not None
        assert torch.equal(visual.visual_tokens, features.flatten(0, 2))
        assert visual.visual_tokens.dtype == features.dtype
        assert visual.grid_thw == (5, 4, 6)
        assert visual.position_mm == FALLING
        assert visual.patient_id == study.patient_id
    grids = [store.visual(study).grid_to_ras for study in prepared.studies]
    assert grids == [None, None, AFFINE]
    shutil.rmtree(folder)  # they are copies
    opened(prepared).visual(prepared.studies[2])


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_a_cell_keeps_its_place_however_the_grid_lies(
    prepared: Prepared, tmp_path: Path, orientation: str
) -> None:
    ends = {"L": (0, -30), "R": (0, 30), "P": (1, -30), "A": (1, 30), "I": (2, -20), "S": (2, 20)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(orientation):
        row, step = ends[letter]
        affine[row, axis] = step
    affine[:3, 3] = [3.0, 4.0, 50.0]
    affine[2, 3] -= 0.5 * affine[2, :3] @ (np.array(GRID) - 1)
    written = {name: table(number) for number, name in enumerate(NAMES)}
    write_tables(tmp_path / "tables", written, dict.fromkeys(NAMES, as_rows(affine)))
    import_tables(prepared, tmp_path / "tables", "e")
    store, study = opened(prepared), prepared.studies[1]
    visual = store.visual(study)
    assert visual.grid_to_ras is not None
    assert visual.visual_tokens is not None
    turned = np.array(visual.grid_to_ras)
    assert aff2axcodes(turned) == ("I", "P", "L")
    grid = store.grid(study)
    cells = visual.visual_tokens.reshape(*grid, WIDTH)
    to_table = np.linalg.inv(affine) @ turned
    for cell in np.ndindex(*grid):
        there = tuple(np.rint(to_table @ [*cell, 1.0])[:3].astype(int))
        assert torch.equal(cells[cell], table(1)[there])
    planes = [float((turned @ [plane, 0, 0, 1])[2]) for plane in range(grid[0])]
    assert visual.position_mm == pytest.approx(planes)


def change(folder: Path, number: int, **fields: Any) -> None:  # noqa: ANN401
    rows = read_rows(folder / FEATURE_TABLES, FeatureTableRow)
    rows[number] = FeatureTableRow.model_validate(rows[number].model_dump() | fields)
    write_rows(folder / FEATURE_TABLES, rows)


def store_as(folder: Path, number: int, features: torch.Tensor) -> None:
    path = folder / f"train_{number}_a_1.safetensors"
    save_file({"features": features}, path, {"volume": NAMES[number]})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def swap(folder: Path) -> None:
    one, two = (folder / f"train_{number}_a_1.safetensors" for number in (0, 1))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


FLAT = GRID[0] * GRID[1] * GRID[2]
WRONG: list[tuple[str, Callable[[Path], object]]] = [
    (
        "of one width, but train_1_a_1.nii.gz has 9 numbers",
        lambda f: store_as(f, 1, torch.ones(FLAT, 9)),
    ),
    ("train_0_a_1.safetensors must hold.*it is of another volume", swap),
    ("must be finite, but those of train_2", lambda f: store_as(f, 2, table(2) / 0)),
    ("must hold the features of train_1_a_1", lambda f: cut(f / "train_1_a_1.safetensors")),
    ("train_1_a_1.nii.gz of 3 have none", lambda f: change(f, 1, volume_name="train_7_a_1")),
    ("No such file", lambda f: (f / "train_1_a_1.safetensors").unlink()),
    ("says, but that of train_1_a_1.nii.gz holds .30, 8.", lambda f: change(f, 1, grid=(5, 2, 4))),
    (
        "float32, but train_1_a_1.nii.gz has int64",
        lambda f: store_as(f, 1, torch.ones(30, 8).long()),
    ),
    ("must not have the same features", lambda f: store_as(f, 1, table(0))),
    ("of its own, but", lambda f: change(f, 1, file="train_0_a_1.safetensors")),
    ("must have one table, but", lambda f: change(f, 1, volume_name="train_0_a_1")),
    (
        "must lie in their scan",
        lambda f: change(f, 1, affine=None, plane_mm=[9e3 + p for p in FALLING]),
    ),
    ("noise must have the grid of a scan", lambda f: change(f, 3, grid=(5, 3, 2))),
]


@pytest.mark.parametrize(("told", "spoil"), WRONG, ids=[told[:20] for told, _ in WRONG])
def test_what_is_wrong_is_told_and_nothing_can_be_read(
    prepared: Prepared, tables: Path, told: str, spoil: Callable[[Path], object]
) -> None:
    spoil(tables)
    with refusal("E_ENCODER", told):
        import_tables(prepared, tables, "e")
    with refusal("E_ENCODER", "but holds those of none"):
        opened(prepared)


def test_files_that_are_none_are_told(prepared: Prepared, tables: Path) -> None:
    change(tables, 0, file="0.npy")
    for content in (b"", b"\x93NUMPY\x01\x00v", np.array(["a"]).tobytes()):
        (tables / "0.npy").write_bytes(content)
        with refusal("E_ENCODER", r"0\.npy must hold the features of train_0"):
            import_tables(prepared, tables, "e")
    np.save(tables / "0.npy", np.ones((FLAT, WIDTH)))
    with refusal("E_ENCODER", "it holds float64"):
        import_tables(prepared, tables, "e")


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        ("plain file name", {"file": "../x.npy"}),
        ("an affine, or plane_mm", {"affine": None}),
        ("independent axes", {"affine": ((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))}),
        ("one plane_mm for each plane", {"affine": None, "plane_mm": (1.0, 2.0)}),
        ("rise or fall", {"affine": None, "plane_mm": (1.0, 2.0, 1.5, 3.0, 4.0)}),
        ("neither affine nor plane_mm", {"noise": True}),
    ],
)
def test_a_row_that_tells_no_place_is_told_by_its_line(
    prepared: Prepared, tables: Path, told: str, fields: dict[str, object]
) -> None:
    rows = [row.model_dump() for row in read_rows(tables / FEATURE_TABLES, FeatureTableRow)]
    rows[1] |= fields
    lines = [FeatureTableRow.model_construct(**row).model_dump_json() for row in rows]
    (tables / FEATURE_TABLES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    with refusal("E_ROW", f"line 2 .*{told}"):
        import_tables(prepared, tables, "e")


def test_it_goes_on_keeps_what_is_there_and_is_not_mixed(
    prepared: Prepared, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_tables(prepared, tables, "e")
    store = opened(prepared)
    first, second = (store.path(study) for study in prepared.studies[:2])
    before = first.stat().st_mtime_ns
    flip_bit(second)
    with refusal("E_ENCODER", "must be there and as it was written"):
        opened(prepared).visual(prepared.studies[1])
    import_tables(prepared, tables, "e")  # makes the damaged one again
    assert torch.equal(load_file(second)["features"], table(1))
    assert first.stat().st_mtime_ns == before
    second.write_bytes(first.read_bytes())
    with refusal("E_ENCODER", "it holds those of something else"):
        opened(prepared).visual(prepared.studies[1])
    store_as(tables, 0, table(5))
    with refusal("E_ENCODER", "but holds others of the same encoder"):
        import_tables(prepared, tables, "e")
    (tmp_path / "weights").write_bytes(b"1")
    with refusal("E_ENCODER", "e must name one encoder .* weights not given"):
        import_tables(prepared, tables, "e", tmp_path / "weights")
    app(["import-features", str(prepared.folder), str(tables), "--encoder", "second"], **QUIET)
    told = capsys.readouterr()
    assert "Features of 3 studies by second (8 numbers per cell" in told.err + told.out
    assert {
        note["name"] for note in map(read_json, prepared.folder.glob("features/*/encoder.json"))
    } == {
        "e",
        "second",
    }
    first.unlink()
    with refusal("E_ENCODER", "train_0_a_1.nii.gz of 3 have none"):
        opened(prepared)


QUIET: dict[str, Any] = {"exit_on_error": False, "result_action": "return_value"}


def test_noise_is_drawn_by_seed_among_what_the_encoder_saw(
    prepared: Prepared, tmp_path: Path
) -> None:
    written = {name: table(number) for number, name in enumerate(NAMES)}
    noise = [table(number) for number in range(20, 24)]
    write_tables(tmp_path / "tables", written, dict.fromkeys(NAMES, AFFINE), noise)
    import_tables(prepared, tmp_path / "tables", "e")
    store, study = opened(prepared), prepared.studies[0]
    assert store.has_noise(prepared.studies)
    drawn = [store.visual(study, seed) for seed in range(12)]
    seen = set()
    for visual in drawn:
        assert visual.visual_tokens is not None
        assert visual.patient_id is None
        assert visual.position_mm == FALLING
        (number,) = (
            n
            for n, each in enumerate(noise)
            if torch.equal(visual.visual_tokens, each.flatten(0, 2))
        )
        seen.add(number)
    assert len(seen) > 2
    again = store.visual(study, 5).visual_tokens
    assert again is not None
    assert drawn[5].visual_tokens is not None
    assert torch.equal(again, drawn[5].visual_tokens)
