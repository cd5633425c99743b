from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from ctscribe.base.recipe import PhantomConfig
from ctscribe.base.rows import Lesion
from ctscribe.phantom.body import Body
from ctscribe.phantom.grid import VoxelGrid
from ctscribe.phantom.study import (
    DRAW_FINDING,
    FINDING_MODEL,
    Study,
    draw_labels,
    draw_patient,
    lesions,
    render,
    study_of_labels,
)
from ctscribe.text.findings import FINDINGS


def grid_of(spacing: tuple[float, float, float] = (2.8, 2.8, 5.0), matrix: int = 128) -> VoxelGrid:
    sx, sy, sz = spacing
    half = (matrix - 1) / 2
    origin = (sx * half, sy * half, -205.0 + 40.0)
    shape = (round(330 / sz), matrix, matrix)
    return VoxelGrid(shape, spacing, origin, 0.03, (2.0, 3.0, 40.0), sx)


def study_with(*findings: str, seed: int = 0) -> Study:
    labels = tuple(int(finding in findings) for finding in FINDINGS)
    return study_of_labels(np.random.default_rng(seed), Body(seed=seed), labels, PhantomConfig())


def without(study: Study, finding: str) -> Study:
    """The same study with one finding healed; its report is left as it was."""
    body = study.scene.body
    if finding == "Cardiomegaly":
        body = replace(body, heart_scale=0.96)
    if finding == "Pericardial effusion":
        body = replace(body, pericardial_mm=0.0)
    rest = {name: items for name, items in study.drawings.items() if name != finding}
    return Study(replace(study.scene, body=body), rest, study.report)


def mask_of(lesion: Lesion, grid: VoxelGrid) -> npt.NDArray[np.bool_]:
    """Voxels in a lesion's box, read as a user of truth.jsonl would, one voxel around."""
    to_index = np.linalg.inv(grid.affine)
    corners = np.array(lesion.box_mm) @ to_index[:3, :3].T + to_index[:3, 3]
    low = np.maximum(np.floor(corners.min(axis=0)) - 1, 0).astype(int)
    high = np.ceil(corners.max(axis=0)).astype(int) + 2
    mask = np.zeros(grid.shape_zyx, bool)
    mask[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = True
    return mask


@pytest.fixture(scope="module")
def healthy() -> npt.NDArray[np.float32]:
    return render(study_with(), grid_of())


def test_every_finding_has_a_plan() -> None:
    assert set(DRAW_FINDING) == set(FINDINGS)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_shows_where_the_truth_says(finding: str, seed: int) -> None:
    study, grid = study_with(finding, seed=seed), grid_of()
    change = np.abs(render(study, grid) - render(without(study, finding), grid)) > 50
    found = lesions(study, grid)
    assert found
    assert {lesion.finding for lesion in found} == {finding}
    inside = np.any([mask_of(lesion, grid) for lesion in found], axis=0)
    assert change.sum() >= 8
    assert (change & inside).sum() > 0.95 * change.sum()


@pytest.mark.parametrize("finding", ["Lung nodule", "Consolidation", "Lymphadenopathy"])
def test_each_lesion_lies_on_its_slices_and_side(finding: str) -> None:
    study, grid = study_with(finding, seed=3), grid_of()
    change = np.abs(render(study, grid) - render(without(study, finding), grid)) > 50
    for lesion in lesions(study, grid):
        first, last = lesion.slices
        assert 0 <= first <= last < grid.shape_zyx[0]
        assert change[first : last + 1].any()
        middle = np.mean(lesion.box_mm, axis=0)[0] - grid.shift_mm[0]
        if lesion.side in ("right", "left"):
            assert (middle > 0) == (lesion.side == "right")


def test_nodules_are_as_large_as_stated() -> None:
    study, grid = study_with("Lung nodule", seed=5), grid_of((1.4, 1.4, 2.0), 256)
    change = render(study, grid) - render(without(study, "Lung nodule"), grid)
    largest = max(lesions(study, grid), key=lambda lesion: lesion.size_mm)
    spots = (np.abs(change) > 300) & mask_of(largest, grid)
    columns = np.flatnonzero(spots.any(axis=(0, 1)))
    rows = np.flatnonzero(spots.any(axis=(0, 2)))
    width_mm = 1.4 * (max(np.ptp(columns), np.ptp(rows)) + 1)
    assert width_mm == pytest.approx(largest.size_mm, abs=3.0)


def test_normal_anatomy_has_plausible_densities(healthy: npt.NDArray[np.float32]) -> None:
    grid = grid_of()

    def hu_at(x: int, y: int, z: int, reach: int = 1) -> float:
        k, j, i = np.rint(grid.to_index(np.array([[x, y, z]], dtype=float))[0]).astype(int)
        a = reach
        around = healthy[k, j - a : j + a + 1, i - a : i + a + 1]
        return float(np.median(around))

    assert -900 < hu_at(75, 0, -60, 4) < -700  # right lung
    assert -900 < hu_at(-85, -30, 20, 4) < -700  # left lung
    assert hu_at(0, -14, 60) < -900  # trachea
    assert 30 < hu_at(-30, -49, -30) < 60  # descending aorta
    assert 40 < hu_at(70, 0, -150) < 75  # liver
    assert 30 < hu_at(-40, 10, -84) < 65  # left ventricle
    assert 100 < hu_at(0, -69, -48) < 320  # vertebral body
    assert hu_at(0, 165, 0) == -1000  # air in front of the patient
    lung = (healthy > -950) & (healthy < -700)
    litres = lung.sum() * np.prod(grid.spacing_mm) / 1e6
    assert 3.0 < litres < 7.5


def test_the_heart_is_enlarged_in_cardiomegaly_only() -> None:
    def ratio(study: Study) -> float:
        body = study.scene.body
        boxes = [chamber.bounds() for chamber in body.heart().values()]
        width = max(box[1][0] for box in boxes) - min(box[0][0] for box in boxes)
        return width / (2 * 134 * body.scale[0])

    assert ratio(study_with()) < 0.5 < ratio(study_with("Cardiomegaly"))


def test_resolution_changes_the_sampling_not_the_patient() -> None:
    study = study_with("Pleural effusion", "Lung nodule", seed=2)
    coarse, fine = grid_of((2.8, 2.8, 5.0)), grid_of((1.4, 1.4, 2.5), 256)
    fluids = []
    for grid in (coarse, fine):
        hu = render(study, grid)
        share = ((hu > -500) & mask_of(lesions(study, grid)[-1], grid)).sum()
        fluids.append(share * np.prod(grid.spacing_mm))
    assert fluids[0] == pytest.approx(fluids[1], rel=0.25)


def test_the_same_seed_gives_the_same_voxels() -> None:
    first, second = (render(study_with(*FINDINGS, seed=9), grid_of()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_unusual_build_can_have_every_finding() -> None:
    for scale in ((0.86, 0.86, 0.86), (1.12, 1.12, 1.12)):
        body = replace(Body(seed=1), scale=scale, fat_mm=30.0, female=True, inspiration_mm=-15.0)
        study = study_of_labels(np.random.default_rng(1), body, (1,) * 18, PhantomConfig())
        assert np.isfinite(render(study, grid_of())).all()
        assert {lesion.finding for lesion in lesions(study, grid_of())} == set(FINDINGS)


@pytest.fixture(scope="module")
def labels() -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return np.array([draw_labels(rng, draw_patient(rng), 0.0) for _ in range(6000)])


def test_each_finding_is_as_frequent_as_in_ct_rate(labels: npt.NDArray[np.int64]) -> None:
    wanted = [FINDING_MODEL[finding][0] for finding in FINDINGS]
    np.testing.assert_allclose(labels.mean(axis=0), wanted, atol=0.02)


def test_patients_have_as_many_findings_as_in_ct_rate(labels: npt.NDArray[np.int64]) -> None:
    assert labels.sum(axis=1).mean() == pytest.approx(3.41, abs=0.12)
    assert (labels.sum(axis=1) == 0).mean() == pytest.approx(0.113, abs=0.02)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Arterial wall calcification", "Coronary artery wall calcification"),
        ("Consolidation", "Lung opacity"),
        ("Cardiomegaly", "Pleural effusion"),
        ("Emphysema", "Peribronchial thickening"),
    ],
)
def test_findings_of_one_disease_come_together(
    labels: npt.NDArray[np.int64], first: str, second: str
) -> None:
    a, b = (labels[:, FINDINGS.index(name)] for name in (first, second))
    assert np.corrcoef(a, b)[0, 1] > 0.15


def test_lasting_findings_stay_between_scans_and_passing_ones_may_go() -> None:
    rng = np.random.default_rng(1)
    lasting = np.array([FINDING_MODEL[finding][1] for finding in FINDINGS])
    pairs = []
    for _ in range(300):
        patient = draw_patient(rng)
        pairs.append((draw_labels(rng, patient, 0.0), draw_labels(rng, patient, 0.0)))
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    assert (first[:, lasting] == second[:, lasting]).all()
    assert (first[:, ~lasting] != second[:, ~lasting]).any()
