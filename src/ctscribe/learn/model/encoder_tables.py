"""Imports features that another encoder computed elsewhere into a prepared folder.

In: a folder with one feature table per volume and ``tables.jsonl`` (`FeatureTableRow`). Out: the
files of an `EncoderStore`, with planes, rows and columns in the order of frames: from cranial,
anterior and the patient's right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, final

import nibabel as nib
import numpy as np
import torch
from isal.isal_zlib import crc32
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    brief,
    remove_parts,
    sha256_of_file,
    sha256_of_json,
    write_json,
)
from ctscribe.base.locks import many_writers, one_writer_of
from ctscribe.base.rows import FEATURE_TABLES, FeatureTableRow, StudyRow, read_rows
from ctscribe.data.prepared import Prepared, stem
from ctscribe.learn.model.feature_store import (
    FEATURES,
    GRID,
    PLANES,
    EncoderStore,
    encoders_in,
    named,
)
from ctscribe.learn.model.projector import ENCODER_FILE, Encoder
from ctscribe.learn.model.tensor_files import facts_of, write_tensors
from ctscribe.scan.boxes import reach_of_planes
from ctscribe.scan.types import Affine

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_AS_FRAMES = nib.orientations.axcodes2ornt(("I", "P", "L"))
_SOURCE = "source"
"""Key in a file's facts: hash of the table and of its row in ``tables.jsonl``."""


@final
@dataclass(frozen=True)
class Imported:
    """Outcome of an import."""

    encoder: Encoder
    num_studies: int
    num_noise: int
    num_not_prepared: int
    """Tables of volumes that are not in the prepared folder; they are not imported."""
    num_without_cells: int
    """Studies whose grid has known plane positions but no affine, so evidence has no boxes."""


class _Table(NamedTuple):
    """A table to import."""

    row: FeatureTableRow
    path: Path
    """Its file in the store."""


def import_tables(
    prepared: Prepared,
    folder: Path,
    name: str,
    weights: Path | None = None,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> Imported:
    """Imports an encoder's features of all prepared studies; an interrupted call can be repeated.

    All tables are checked before anything is written. They are copied with a checksum. Files that
    are in the store already are kept, and must come from the same tables.

    Args:
        prepared: The studies.
        folder: The tables.
        name: Name of the encoder, as in a recipe's ``model.encoder``.
        weights: The encoder's weights file, whose hash distinguishes encoders of one name.
        progress: Called with (tables copied, all tables).

    Raises:
        CtscribeError: ``E_ENCODER`` for what is wrong with the tables, ``E_MISSING`` or ``E_ROW``
            for their list, ``E_BUSY``, ``E_WRITE``.
    """
    rows = read_rows(folder / FEATURE_TABLES, FeatureTableRow)
    scans = _by_stem([row for row in rows if not row.noise])
    noise = [row for row in rows if row.noise]
    studies = prepared.studies
    missing = [each.volume_name for each in studies if stem(each.volume_name) not in scans]
    if missing:
        raise _wrong(
            f"every study of {prepared.folder} must have a table in {folder / FEATURE_TABLES}, but "
            f"{named(missing)} of {len(studies)} have none"
        )
    wanted = [scans[stem(study.volume_name)] for study in studies]
    weights_sha256 = None if weights is None else sha256_of_file(weights)
    encoder = Encoder(name, _width(folder, [*wanted, *noise]), weights_sha256)
    _require_unique_name(prepared, encoder)
    for study, row in zip(studies, wanted, strict=True):
        _require_in_scan(study, row)
    _require_grids({row.grid for row in wanted}, noise)
    store = EncoderStore(prepared, prepared.features(encoder.hash), encoder=encoder)
    with many_writers(prepared.folder), one_writer_of(store.folder):
        remove_parts(store.folder)
        _copy(folder, _tables(store, studies, wanted, noise), store, progress)
        write_json(store.folder / ENCODER_FILE, asdict(encoder))
    without_cells = sum(row.affine is None for row in wanted)
    return Imported(
        encoder, len(studies), len(noise), len(scans) - len(set(map(id, wanted))), without_cells
    )


def _by_stem(rows: Sequence[FeatureTableRow]) -> dict[str, FeatureTableRow]:
    """Rows by volume name without suffix, as prepared files are named."""
    found: dict[str, FeatureTableRow] = {}
    files: dict[str, str] = {}
    for row in rows:
        key = stem(row.volume_name)
        if key in found:
            raise _wrong(f"each volume must have one table, but {row.volume_name} has two")
        if (other := files.setdefault(row.file, row.volume_name)) != row.volume_name:
            raise _wrong(
                f"each volume must have a table of its own, but {row.volume_name} and {other} "
                f"have both {row.file}"
            )
        found[key] = row
    return found


def _width(folder: Path, rows: Sequence[FeatureTableRow]) -> int:
    """The length of a feature vector, which must be the same in all tables."""
    first, width = "", 0
    for row in rows:
        found = _open(folder, row).shape[-1]
        if first and found != width:
            raise _wrong(
                f"the features of one encoder must be of one width, but {row.volume_name} has "
                f"{found} numbers per cell and {first} has {width}"
            )
        first, width = first or row.volume_name, found
    return width


def _require_unique_name(prepared: Prepared, encoder: Encoder) -> None:
    for other in encoders_in(prepared):
        if other.name == encoder.name and other != encoder:
            raise _wrong(
                f"{encoder.name} must name one encoder in {prepared.folder}, but features of "
                f"{other} are there, and these are of {encoder}"
            )


def _require_in_scan(study: StudyRow, row: FeatureTableRow) -> None:
    """Refuses a grid outside the scan: it belongs to another volume, or has its axes swapped."""
    _, _, planes_mm = _as_frames(np.empty(row.grid, dtype=bool), row)
    reach = reach_of_planes(planes_mm)
    middle_mm = (study.position_mm[0] + study.position_mm[-1]) / 2
    if not reach.min() <= middle_mm <= reach.max():
        raise _wrong(
            f"the planes of a grid must lie in their scan, but those of {row.volume_name} reach "
            f"from {reach.min():.0f} to {reach.max():.0f} mm and the middle of its slices is at "
            f"{middle_mm:.0f} mm (RAS+)"
        )


def _require_grids(grids: set[tuple[int, int, int]], noise: Sequence[FeatureTableRow]) -> None:
    """Refuses noise whose grid no scan has."""
    for row in noise:
        if row.grid not in grids:
            raise _wrong(
                f"noise must have the grid of a scan, but {row.volume_name} has "
                f"{' × '.join(map(str, row.grid))}"
            )


def _tables(
    store: EncoderStore,
    studies: Sequence[StudyRow],
    wanted: Sequence[FeatureTableRow],
    noise: Sequence[FeatureTableRow],
) -> list[_Table]:
    paths = [store.path(study) for study in studies]
    numbered: dict[tuple[int, int, int], int] = {}
    for row in noise:
        number = numbered[row.grid] = numbered.get(row.grid, -1) + 1
        paths.append(store.noise_path(row.grid, number))
    return [_Table(row, path) for row, path in zip([*wanted, *noise], paths, strict=True)]


def _copy(
    folder: Path, tables: Sequence[_Table], store: EncoderStore, progress: ProgressCallback
) -> None:
    """Copies tables into the store; files that were copied from the same tables before are kept."""
    progress(0, len(tables))
    of_source: dict[int, str] = {}
    for done, (row, path) in enumerate(tables, 1):
        features = _open(folder, row)
        content = crc32(features.contiguous().view(torch.uint8).numpy())
        source = sha256_of_json([content, row.model_dump(mode="json", exclude={"file"})])[:16]
        if (other := of_source.setdefault(content, row.volume_name)) != row.volume_name:
            raise _wrong(
                f"two volumes must not have the same features, but {row.volume_name} and {other} "
                "have"
            )
        if not _is_copied(path, source, row.volume_name):
            _write(features, row, path, {**store.facts(path), _SOURCE: source})
        progress(done, len(tables))


def _is_copied(path: Path, source: str, name: str) -> bool:
    try:
        there = facts_of(path).get(_SOURCE) if path.exists() else None
    except CtscribeError:  # damaged, and made again
        return False
    if there not in (None, source):
        raise _wrong(
            f"{path.parent} must hold the features of {name} that are given, but holds others of "
            "the same encoder; delete that folder, or give the encoder another name"
        )
    return there == source


def _write(features: Tensor, row: FeatureTableRow, path: Path, facts: Mapping[str, str]) -> None:
    if not bool(torch.isfinite(features).all()):
        raise _wrong(f"features must be finite, but those of {row.volume_name} are not")
    axes, affine, planes_mm = _as_frames(np.arange(np.prod(row.grid)).reshape(row.grid), row)
    cells = features.reshape(-1, features.shape[-1])[torch.from_numpy(axes.flatten())]
    tensors = {
        FEATURES: cells.reshape(*axes.shape, -1).contiguous(),
        PLANES: torch.tensor(planes_mm, dtype=torch.float64),
        GRID: torch.from_numpy(np.empty((0, 4)) if affine is None else affine),
    }
    write_tensors(path, tensors, facts)


def _open(folder: Path, row: FeatureTableRow) -> Float[Tensor, "*cells width"]:
    """The table in a file, mapped into memory where the format allows it."""
    path, name = folder / row.file, row.volume_name
    try:
        table = _npy(path) if path.suffix == ".npy" else _safetensors(path, name)
    except (OSError, EOFError, ValueError, SafetensorError) as error:
        raise _wrong(f"{path} must hold the features of {name}, but {brief(error)}") from error
    if table.dtype not in _DTYPES:
        found = str(table.dtype).removeprefix("torch.")
        raise _wrong(f"features must be float16, bfloat16 or float32, but {name} has {found}")
    cells = int(np.prod(row.grid))
    if tuple(table.shape[:-1]) not in ((cells,), row.grid):
        raise _wrong(
            f"a table must hold [{cells}, width] or [{', '.join(map(str, row.grid))}, width] as "
            f"its grid says, but that of {name} holds {list(table.shape)}"
        )
    return table


def _npy(path: Path) -> Tensor:
    mapped = np.load(path, mmap_mode="c", allow_pickle=False)
    if mapped.dtype not in (np.float16, np.float32):
        raise ValueError(f"it holds {mapped.dtype}, and .npy may hold float16 or float32")
    return torch.from_numpy(mapped)


def _safetensors(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        volume = (file.metadata() or {}).get("volume")
        if volume is not None and stem(volume) != stem(name):
            raise ValueError("the file says that it is of another volume")
        keys = list(file.keys())
        if FEATURES not in keys and len(keys) != 1:
            raise ValueError(f"it has {len(keys)} tensors, none of them called {FEATURES}")
        table: Tensor = file.get_tensor(FEATURES if FEATURES in keys else keys[0])
    return table


def _as_frames(
    cells: np.ndarray, row: FeatureTableRow
) -> tuple[np.ndarray, Affine | None, tuple[float, ...]]:
    """A grid's cells in the order of frames, with their affine and the positions of planes.

    Without an affine only the order of planes is known, so rows and columns stay as they are.
    """
    if row.affine is None:
        places = row.plane_mm or (0.0,) * row.grid[0]
        step = -1 if places[0] < places[-1] else 1
        return cells[::step], None, places[::step]
    affine = np.array(row.affine, np.float64)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), _AS_FRAMES)
    turned = nib.orientations.apply_orientation(cells, turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, cells.shape)
    planes, rows, columns = turned.shape
    middles = np.array([[p, (rows - 1) / 2, (columns - 1) / 2, 1.0] for p in range(planes)])
    return turned, affine, tuple((middles @ affine.T)[:, 2].tolist())


def _wrong(sentence: str) -> CtscribeError:
    return CtscribeError("E_ENCODER", sentence)
