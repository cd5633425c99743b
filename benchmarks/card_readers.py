"""Readers of CT that look, and readers of everything but the anatomy, for the card to tell apart.

In: phantoms, and the NIfTI files that `alter` writes of them. Out: for each reader a folder with
one CSV of reports per view, as any model's user would make it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import final

import nibabel as nib
import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from ctscribe.base.files import write_text
from ctscribe.base.recipe import read_recipe
from ctscribe.base.rows import StudyRow, write_rows
from ctscribe.base.tables import format_csv
from ctscribe.base.types import Labels
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import STUDIES, Prepared
from ctscribe.measure.card_files import write_altered
from ctscribe.measure.card_views import VIEWS
from ctscribe.phantom.dataset import write_dataset
from ctscribe.text.findings import FINDINGS
from ctscribe.text.template import write_template

VISIBLE = (
    *("Cardiomegaly", "Pericardial effusion", "Hiatal hernia", "Emphysema", "Pleural effusion"),
    *("Mosaic attenuation pattern", "Consolidation", "Interlobular septal thickening"),
)
"""Findings that voxels of 5.6 × 5.6 × 10 mm show; all readers are asked about these alone."""
KNOBS = (
    *("phantom.spacing_mm=[5.6, 5.6, 10.0]", "volume.spacing_mm=[5.6, 5.6, 10.0]"),
    *("phantom.matrix_px=64", "phantom.second_reconstruction=0", "phantom.lesion_scale=3"),
    *("phantom.burden=0.7", "phantom.seed=5"),
)
LIKE_HIM = 15
"""Training scans of like age and sex whose findings are stated where most have them."""
BLOCKS = 10
"""Along each side of a slice or a volume, which a reader that looks sees averages of."""
ONE_SLICE_AT = 0.5
"""Height of the slice that is looked at, as a share of the volume."""
RIDGE = 0.2
Trace = Float64[np.ndarray, "_"]


@final
@dataclass(frozen=True)
class Scan:
    """One file, as a reader is given it, and what a reader could know of its name."""

    path: Path
    study: StudyRow

    @cached_property
    def hu(self) -> np.ndarray:
        return np.asarray(nib.load(self.path).dataobj)

    @cached_property
    def header(self) -> Trace:
        image = nib.load(self.path)
        return np.array([*image.shape, *image.header.get_zooms()], dtype=np.float64)

    @property
    def labels(self) -> Labels:
        assert self.study.labels is not None  # phantoms have them
        return self.study.labels


Reader = Callable[[Scan], Labels]


def draw_scans(out: Path, num_train: int, num_test: int, processes: int = 1) -> Prepared:
    """Draws phantoms, prepares them and writes all views of the test scans to ``out/altered``."""
    numbers = (f"phantom.num_train_patients={num_train}", f"phantom.num_valid_patients={num_test}")
    recipe = read_recipe("tiny", (*KNOBS, *numbers))
    write_dataset(out / "phantoms", recipe.phantom, processes=processes)
    knobs = recipe.volume, recipe.slices, recipe.splits
    folder = out / "prepared"
    prepare(out / "phantoms", folder, *knobs, keep="all", processes=processes)
    write_rows(folder / STUDIES, map(with_visible, Prepared(folder).studies))
    write_altered(Prepared(folder), "test", out / "altered")
    return Prepared(folder)


def with_visible(study: StudyRow) -> StudyRow:
    """The study with a report of nothing but what its voxels show."""
    has = zip(FINDINGS, study.labels or (), strict=True)
    labels = tuple(label if finding in VISIBLE else 0 for finding, label in has)
    findings, impression = write_template(labels)
    told = {"labels": labels, "findings": findings, "impression": impression}
    return study.model_copy(update=told)


def write_answers(reader: Reader, prepared: Prepared, altered: Path, out: Path) -> None:
    """Lets a reader write of every file of every view; ``out/<view>.csv``."""
    for view in VIEWS:
        rows = [("VolumeName", "findings", "impression")]
        for study in prepared.scans("test"):
            stated = reader(Scan(altered / view / study.volume_name, study))
            rows.append((study.volume_name, *write_template(stated)))
        write_text(out / f"{view}.csv", format_csv(rows))


def make_readers(prepared: Prepared, altered: Path) -> dict[str, Reader]:
    """All readers by name; those that look learn from training scans, the others know the test."""
    learned = [
        Scan(prepared.require_volume(study), study)
        for study in prepared.studies
        if study.split != "test"
    ]
    known = [Scan(altered / "real" / study.volume_name, study) for study in prepared.scans("test")]
    constant = commonest(learned)
    return {
        "constant": lambda scan: constant,
        "header": nearest(lambda scan: scan.header, known),
        "field of view": nearest(lambda scan: scan.header[:3] * scan.header[3:], known),
        "noise level": nearest(noise_level, known),
        "histogram": nearest(histogram, known),
        "file size": nearest(lambda scan: np.array([scan.path.stat().st_size], float), known),
        "file order": in_order(known),
        "file name": listed(known, lambda scan: scan.path.name, constant),
        "age and sex": partial(like_him, learned),
        "list of files": listed(
            known, lambda scan: sha256(scan.hu.tobytes()).hexdigest(), constant
        ),
        "one slice": looks(partial(averages, one_slice=True), learned),
        "all slices": looks(partial(averages, one_slice=False), learned),
    }


def commonest(scans: Sequence[Scan]) -> Labels:
    """The constant with the best F1: the k commonest findings."""
    true = np.array([scan.labels for scan in scans])
    order = np.argsort(-true.mean(axis=0), kind="stable")
    constants = [np.isin(np.arange(len(FINDINGS)), order[:k]) for k in range(1, len(VISIBLE) + 1)]
    best = max(constants, key=lambda stated: f1(np.broadcast_to(stated, true.shape), true))
    return as_labels(best)


def f1(stated: np.ndarray, true: np.ndarray) -> float:
    """Over all cells."""
    return float(2 * (stated * true).sum() / max(stated.sum() + true.sum(), 1))


def as_labels(stated: np.ndarray) -> Labels:
    return tuple(int(each) for each in stated)


def nearest(trace: Callable[[Scan], Trace], known: Sequence[Scan]) -> Reader:
    """Gives the findings of the known scan whose trace is nearest, each number by its spread."""
    traces = np.array([trace(scan) for scan in known])
    spread = traces.std(axis=0) + 1e-9

    def read(scan: Scan) -> Labels:
        away = (((trace(scan) - traces) / spread) ** 2).sum(axis=1)
        return known[int(np.argmin(away))].labels

    return read


def listed(known: Sequence[Scan], name: Callable[[Scan], str], otherwise: Labels) -> Reader:
    """Gives the findings of the known scan of that very name, else a constant."""
    labels = {name(scan): scan.labels for scan in known}
    return lambda scan: labels.get(name(scan), otherwise)


def in_order(known: Sequence[Scan]) -> Reader:
    """Gives the findings of the known scan that has the file's place in its folder."""
    labels = [scan.labels for scan in sorted(known, key=lambda scan: scan.path.name)]
    return lambda scan: labels[sorted(scan.path.parent.iterdir()).index(scan.path)]


def like_him(learned: Sequence[Scan], scan: Scan) -> Labels:
    """Gives what most training scans of like age and the same sex have."""
    years = scan.study.age_years or 0
    same = [one for one in learned if one.study.sex == scan.study.sex]
    near = sorted(same, key=lambda one: abs((one.study.age_years or 0) - years))[:LIKE_HIM]
    return as_labels(np.mean([one.labels for one in near], axis=0) >= 0.4)


def fingerprint(scan: Scan) -> str:
    return sha256(scan.hu.tobytes()).hexdigest()


def noise_level(scan: Scan) -> Trace:
    """Log of the second differences in the evenest fifth of the tissue."""
    detail = ndimage.convolve(
        scan.hu.astype(np.float32), np.outer((1, -2, 1), (1, -2, 1))[..., None].astype(np.float32)
    )
    tissue = np.abs(detail[scan.hu > -300])
    return np.array([np.log1p(np.quantile(tissue, 0.2)) if tissue.size else 0.0])


def histogram(scan: Scan) -> Trace:
    edges = (-1100, -1000, -960, -900, -850, -800, -700, -500, -200, -50, 0, 30, 60, 100, 200, 4000)
    return np.histogram(scan.hu, bins=edges)[0] / scan.hu.size


def averages(scan: Scan, *, one_slice: bool) -> Trace:
    """Means over blocks of the density and of the shares of fluid, gas, opacity and bone."""
    hu = np.clip(scan.hu, -1024, 1000).astype(np.float64)
    if one_slice:
        at = int(hu.shape[2] * ONE_SLICE_AT)
        hu = hu[:, :, at : at + 1]
    sides = [min(BLOCKS, size) for size in hu.shape]
    places = [np.arange(size) * side // size for size, side in zip(hu.shape, sides, strict=True)]
    block = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), sides).ravel()
    shown = (hu / 1000, (hu > -20) & (hu < 40), hu < -950, (hu > -700) & (hu < -200), hu > 200)
    counts = np.bincount(block)
    return np.concatenate([np.bincount(block, np.ravel(each)) / counts for each in shown])


def looks(see: Callable[[Scan], Trace], learned: Sequence[Scan]) -> Reader:
    """Ridge regression of the findings on what is seen, its threshold by leaving one scan out."""
    seen, true = np.array([see(s) for s in learned]), np.array([s.labels for s in learned])
    mean, spread, share = seen.mean(axis=0), seen.std(axis=0) + 1e-3, true.mean(axis=0)
    unit = (seen - mean) / spread
    kernel = unit @ unit.T
    inverse = np.linalg.inv(kernel + RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel)))
    weights = unit.T @ inverse @ (true - share)
    hat = kernel @ inverse
    own = np.diag(hat)[:, None] * (true - share)
    left_out = share + (hat @ (true - share) - own) / (1 - np.diag(hat))[:, None]
    threshold = max(np.linspace(0.1, 0.7, 25), key=lambda at: f1(left_out > at, true))
    return lambda scan: as_labels(((see(scan) - mean) / spread) @ weights + share > threshold)
