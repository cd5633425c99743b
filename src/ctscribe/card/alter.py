"""Altered volumes as files, so that any model can be shown what the card shows ours.

Every view is written on the same grid, the scan itself included, so that files differ in nothing
but what the view is about.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from isal import igzip

from ctscribe.card.measure import scans_with_strangers
from ctscribe.card.views import DROPPED_SHARE, VIEWS, draw_dropped, draw_order
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, atomic_write, sha256_of_json
from ctscribe.pairs.build import noise_seeds
from ctscribe.pairs.splits import Split, studies_of
from ctscribe.rows import StudyRow, read_rows
from ctscribe.run import open_run
from ctscribe.slices.cache import stem
from ctscribe.types import VolumeHu
from ctscribe.volume.ct import CTVolume
from ctscribe.volume.intensity import AIR_HU
from ctscribe.volume.read import read_volume
from ctscribe.volume.store import nifti_header

_NOISE_HU = 1000.0


def write_altered(
    prepared_dir: Path,
    split: Split,
    validation_fraction: float,
    out: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> int:
    """Writes ``OUT/<view>/<name>.nii.gz``, int16 HU, for every scan of a split and every view.

    Files that are there are kept, so an interrupted call goes on.

    Args:
        prepared_dir: What `prepare` wrote, volumes included.
        split: Whose scans, of at least two patients.
        validation_fraction: As in ``pairs.validation_fraction``.
        out: Folder to write to.
        progress: Told (files written, all).

    Returns:
        Number of scans.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_RUN_EXISTS`` when the
            folder holds the views of other scans, ``E_MISSING`` without prepared volumes.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    scans, strangers = scans_with_strangers(studies_of(studies, split, validation_fraction))
    scanned = sha256_of_json([scan.model_dump(mode="json") for scan in scans])
    open_run(out, "alter", {"split": split, "views": VIEWS, "studies_sha256": scanned})
    done = 0
    for scan in scans:
        for view, make in _makers(prepared_dir, scan, strangers[scan.volume_name]):
            path = out / view / f"{stem(scan.volume_name)}.nii.gz"
            if not path.exists():
                _write(path, make())
            done += 1
            progress(done, len(VIEWS) * len(scans))
    return len(scans)


def shuffle_slices(hu: VolumeHu, seed: int) -> VolumeHu:
    """The axial slices in a drawn order in which none keeps its place."""
    return hu[:, :, draw_order(hu.shape[2], seed)]


def drop_slices(hu: VolumeHu, seed: int) -> VolumeHu:
    """The volume with half of its axial slices, drawn, replaced by air."""
    left = hu.copy()
    left[:, :, draw_dropped(hu.shape[2], DROPPED_SHARE, seed)] = AIR_HU
    return left


def noise_like(hu: VolumeHu, seed: int) -> VolumeHu:
    """Standard normal noise in units of 1000 HU, clipped to ±1000 HU."""
    drawn = np.random.default_rng(seed).standard_normal(hu.shape, dtype=np.float32)
    noise: VolumeHu = np.rint(np.clip(drawn, -1, 1) * _NOISE_HU).astype(np.int16)
    return noise


def _makers(
    prepared_dir: Path, scan: StudyRow, stranger: StudyRow
) -> Iterator[tuple[str, Callable[[], CTVolume]]]:
    """Each view with what makes it; nothing is read unless a view is made."""
    seed = noise_seeds([scan.volume_name], seed=0)[0]

    def altered(change: Callable[[VolumeHu], VolumeHu]) -> Callable[[], CTVolume]:
        def make() -> CTVolume:
            own = _read(prepared_dir, scan)
            return CTVolume(change(own.hu), own.affine)

        return make

    yield "real", altered(lambda hu: hu)
    yield "noise", altered(lambda hu: noise_like(hu, seed))
    yield "blank", altered(lambda hu: np.full(hu.shape, AIR_HU, dtype=np.int16))
    yield "other_patient", lambda: _read(prepared_dir, stranger)
    yield "shuffled", altered(lambda hu: shuffle_slices(hu, seed))
    yield "dropped", altered(lambda hu: drop_slices(hu, seed))


def _read(prepared_dir: Path, study: StudyRow) -> CTVolume:
    path = prepared_dir / "preprocessed" / f"{stem(study.volume_name)}.nii.gz"
    if not path.exists():
        raise CtscribeError(
            "E_MISSING",
            f"{path} must exist, as `prepare --keep all` writes it",
        )
    return read_volume(path, study=study.volume_name, intensity="hu")[0]


def _write(path: Path, volume: CTVolume) -> None:
    with (
        atomic_write(path) as file,
        igzip.IGzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as gz,
    ):
        gz.write(nifti_header(volume.shape_xyz, volume.affine))
        for plane in volume.hu.T:
            gz.write(np.ascontiguousarray(plane, dtype="<i2").data)
