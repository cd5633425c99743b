"""Where evidence lies in the body: a lesion in one cell of another encoder's grid."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import (
    FEATURE_TABLES,
    FeatureTableRow,
    Lesion,
    PredictionRow,
    TruthRow,
    write_rows,
)
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.cells import CELLS_PER_SIDE
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.model.encoder_tables import import_tables
from ctscribe.learn.model.feature_store import find_encoder
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.learn.model.projector import attach_projector
from ctscribe.measure.faithfulness import check_faithfulness
from ctscribe.measure.places import read_places
from ctscribe.show.report import report_of, save_draft
from ctscribe.show.viewer import places_of
from ctscribe.text.findings import FINDINGS
from ctscribe.write.find_evidence import find_evidence
from ctscribe.write.token_planes import ShownSlices, plane_locator
from ctscribe.write.writer import ReportWriter
from tests.data.tree import SLICES, VOLUME, write_tree
from tests.models import tiny_model, write_run

NAMES = ["train_1_a_1.nii.gz", "valid_1_a_1.nii.gz"]
TEXT = "Findings: A nodule is seen. No effusion.\nImpression: Lung nodule."
GRID = (7, 6, 9)
"""Along the patient's left, back and head: none of the axes lies as those of frames do."""
LESION = (2, 4, 3)
WIDTH = 16
SUB = (1, 2)
"""Row and column of the cell in its visual token."""
RECIPE = Recipe.model_validate(
    {
        "volume": VOLUME.model_dump(),
        "slices": SLICES.model_dump(),
        "model": {"dtype": "float32", "positions": "depth", "encoder": "e"},
        "generate": {"max_new_tokens": 8},
    }
)


def grid_affine(prepared: Prepared, name: str) -> np.ndarray:
    """Of a grid of 40 × 40 × 36 mm around the middle of a scan, counted to L, P and S."""
    study = prepared.by_name[name]
    height, width = prepared.frames(study).shape[1:3]
    middle = np.array(study.frame_to_ras) @ [(width - 1) / 2, (height - 1) / 2, 20.0, 1.0]
    affine = np.diag([-40.0, -40.0, 36.0, 1.0])
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(GRID) - 1) / 2)
    return affine


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two scans with their volumes, and tables in which one cell differs from all others."""
    folder = tmp_path_factory.mktemp("scans")
    prepare(write_tree(folder / "tree", NAMES).root, folder / "prepared", VOLUME, SLICES)
    prepared, tables = Prepared(folder / "prepared"), folder / "tables"
    tables.mkdir()
    rows = []
    for number, name in enumerate(NAMES):
        table = torch.zeros(*GRID, WIDTH)
        table[..., 0] = 1.0 + number
        table[LESION] = torch.arange(WIDTH).float()
        save_file({"t": table}, tables / f"{number}.safetensors")
        affine = grid_affine(prepared, name).tolist()
        row = {"volume_name": name, "file": f"{number}.safetensors", "grid": GRID, "affine": affine}
        rows.append(FeatureTableRow.model_validate(row))
    write_rows(tables / FEATURE_TABLES, rows)
    import_tables(prepared, tables, "e")
    return prepared


@pytest.fixture(scope="module")
def writer(
    prepared: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> ReportWriter:
    """Its queries ask one sub-cell for what the lesion's features are made into."""
    qwen = tiny_model(tokenizer)
    projector = attach_projector(qwen, find_encoder(prepared, "e"))
    head = attach_finding_queries(qwen).head
    with torch.no_grad():
        usual = torch.zeros(1, WIDTH)
        usual[0, 0] = 1.0
        lesion = projector(torch.arange(WIDTH).float()[None])[0] - projector(usual)[0]
        head.cells.weight.zero_()
        place = (SUB[0] * CELLS_PER_SIDE + SUB[1]) * len(FINDINGS)
        nodule = FINDINGS.index("Lung nodule")
        head.cells.weight[place + nodule] = 30 * lesion / lesion.square().sum()
    return ReportWriter(write_run(tmp_path_factory.mktemp("run"), RECIPE, qwen, tokenizer))


def box_of_cell(affine: np.ndarray) -> np.ndarray:
    """Lower and upper corner (RAS+) of the lesion's sub-cell, by what the tables say.

    Frames run to the patient's back and left, as this grid does; its third axis runs to the head.
    """
    left, back, up = (np.array(LESION) - 0.5).tolist()
    row, column = (sub / CELLS_PER_SIDE for sub in SUB)
    step = 1 / CELLS_PER_SIDE
    ends = [(left + column, back + row, up), (left + column + step, back + row + step, up + 1)]
    corners = np.array([affine @ [*end, 1.0] for end in ends])[:, :3]
    return np.stack([corners.min(0), corners.max(0)])


def test_a_lesion_in_one_cell_is_shown_where_the_cell_lies(
    prepared: Prepared, writer: ReportWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(TEXT, (), (), finished=True)
    monkeypatch.setattr(ReportWriter, "answers", lambda *_: [answer])
    expected = box_of_cell(grid_affine(prepared, NAMES[1]))
    draft = writer.draft(prepared, prepared.by_name[NAMES[1]])
    save_draft(draft, tmp_path / "report.json")
    save_draft(draft, tmp_path / "report.html")
    save_draft(draft, tmp_path / "report.txt")
    assert "what the encoder e saw of the whole scan" in (tmp_path / "report.html").read_text(
        "utf-8"
    )
    words = " ".join((tmp_path / "report.txt").read_text("utf-8").split())
    assert "Written from what the encoder e saw of the whole scan, by tiny" in words
    told = read_json(tmp_path / "report.json")["sentences"][0]["slices"]
    assert told
    for shown in told:
        np.testing.assert_allclose(shown["box_mm"], expected, atol=1e-6)
        assert expected[0, 2] <= shown["position_mm"] <= expected[1, 2]
    report = report_of(draft)
    assert report.scan is not None
    affine = report.scan.volume.affine
    place = places_of(report.scan, affine, dict(enumerate(report.sentences, 1)))[1]
    corners = np.array([affine @ [*corner, 1.0] for corner in (place.low, place.high)])[:, :3]
    np.testing.assert_allclose(np.sort(corners, axis=0), expected, atol=1e-6)
    assert place.boxed
    assert place.low[2] <= place.slice <= place.high[2]
    left, top, right, bottom = told[0]["box_px"]
    assert draft.prepared is not None
    edges = [(left - 0.5, top - 0.5), (right - 0.5, bottom - 0.5)]
    in_mm = np.array([draft.prepared.frame_to_ras @ [*edge, 0, 1] for edge in edges])[:, :2]
    np.testing.assert_allclose(np.sort(in_mm, axis=0), expected[:, :2], atol=3.1)  # half a pixel


def test_evidence_files_and_the_truth_agree_with_it(
    prepared: Prepared, writer: ReportWriter, tmp_path: Path
) -> None:
    study = prepared.by_name[NAMES[1]]
    written = PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=NAMES[1],
        findings="A nodule is seen.",
        impression="",
    )
    write_rows(tmp_path / "predictions.jsonl", [written])
    (row,) = find_evidence(
        writer, prepared, tmp_path / "predictions.jsonl", tmp_path / "evidence_test.jsonl"
    )
    best, expected = row.sentences[0].pairs[0], box_of_cell(grid_affine(prepared, NAMES[1]))
    np.testing.assert_allclose(best.box_mm or (), expected, atol=1e-6)
    (low, high) = (tuple(corner) for corner in np.add(expected, [[1.0], [-1.0]]).tolist())
    lesion = Lesion(
        finding="Lung nodule",
        box_mm=(low, high),
        size_mm=8.0,
        side="left",
        lobe=None,
        slices=(0, 1),
        sentence="A nodule is seen.",
    )
    truth = TruthRow(volume_name=NAMES[1], scan_id=study.scan_id, lesions=(lesion,))
    write_rows(tmp_path / "truth.jsonl", [truth])
    found = check_faithfulness(
        writer, prepared, tmp_path / "predictions.jsonl", tmp_path / "truth.jsonl"
    )
    assert found["all"]["sentences"] == 1
    assert found["all"]["hit@1"]["attention"]["value"] == 1
    assert found["all"]["overlap"]["attention"]["value"] > 0.8
    places = read_places(tmp_path / "evidence_test.jsonl", prepared)
    (region,) = next(iter(places.values()))(None)["Lung nodule"]
    np.testing.assert_allclose(region.ends.T, expected, atol=1e-6)


def test_planes_alone_name_slices_and_no_box(prepared: Prepared, writer: ReportWriter) -> None:
    study = prepared.by_name[NAMES[1]]
    shown = ShownSlices.of_study(prepared, study)
    store = writer.features(prepared, [study])
    visual = replace(store.visual(study), grid_to_ras=None)
    find = plane_locator(visual, shown, 7, of_encoder=True)
    layers = [find(number, (0, 0, 1, 1)) for number in range(GRID[2])]
    assert all(layer.box_px is None and layer.box_mm is None for layer in layers)
    reported = [index for layer in layers for index in layer.slice_indices]
    assert set(study.slice_indices) <= set(reported)
    for layer, middle in zip(layers, visual.position_mm, strict=True):
        assert all(abs(mm - middle) <= 18 + 1e-6 for mm in layer.position_mm)
    beside = ShownSlices(shown.slice_indices, shown.position_mm, shown.frame_to_ras, (56, 84), 40)
    far = plane_locator(replace(visual, position_mm=(5000.0, 0.0)), beside, 7, of_encoder=True)
    assert far(0, None).slice_indices == ()
