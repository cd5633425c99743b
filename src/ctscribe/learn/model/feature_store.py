"""Stored visual features, of the model's own tower or of another encoder, read on demand.

`features` computes the former, `encoder_tables` imports the latter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared, stem
from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.projector import ENCODER_FILE, Encoder, read_encoder
from ctscribe.learn.model.tensor_files import facts_of, map_tensor
from ctscribe.learn.pairs.dataset import Visual, slice_pair_positions

FEATURES, PLANES, GRID = "features", "plane_mm", "grid_to_ras"
"""Names of the tensors in a file: the features; and, of another encoder, the superior coordinate of
each plane and the matrix (plane, row, column, 1) → RAS+ mm, empty where it is unknown."""
NOISE_PAIRS = 256
"""Slice pairs in the noise bank of a frame size; five drawn from it make 10¹² different volumes."""


@dataclass(frozen=True)
class FeatureStore:
    """The tower's features of prepared studies, as `store_features` wrote them.

    There is one file per volume, named after the volume and its frames' checksum, and one noise
    bank per frame size. Both hold [slice pairs, rows, columns, width] in the model's dtype and are
    mapped into memory. A process checks a file's checksum when it first reads it. ``width`` is the
    width of a visual token or, for features stored before the merger, of the merger's input.
    """

    CODE: ClassVar = "E_FEATURES"
    """Error code for a file that is missing or wrong."""

    prepared: Prepared
    folder: Path
    """Its name is a hash of the tower: configuration, weights and their dtype."""
    _checked: set[Path] = field(default_factory=set, repr=False, compare=False)
    """Files that this process has checked."""

    def visual_tokens(self, study: StudyRow) -> Float[Tensor, "visual_tokens width"]:
        """A study's visual tokens in the order of its slice pairs, as stored."""
        return self._of(study).flatten(0, 2)

    def noise_tokens(
        self, noise_seed: int, num_slice_pairs: int, grid_hw: tuple[int, int]
    ) -> Float[Tensor, "visual_tokens width"]:
        """Visual tokens of a noise volume, drawn from the noise bank with ``noise_seed``.

        ``grid_hw`` counts rows and columns of visual tokens.
        """
        bank = self._read(self.bank_path(grid_hw), (NOISE_PAIRS, *grid_hw))
        picked = np.random.default_rng(noise_seed).integers(len(bank), size=num_slice_pairs)
        return bank[torch.from_numpy(picked)].flatten(0, 2)

    def visual(self, study: StudyRow, noise_seed: int | None = None) -> Visual:
        """The visual input of a study or, with a seed, of noise of the same size."""
        pairs, rows, columns, _ = self._of(study).shape
        if noise_seed is None:
            tokens = self.visual_tokens(study)
        else:
            tokens = self.noise_tokens(noise_seed, pairs, (rows, columns))
        return Visual(
            grid_thw=(pairs, rows * MERGE, columns * MERGE),
            position_mm=slice_pair_positions(study.position_mm),
            visual_tokens=tokens,
            patient_id=None if noise_seed is not None else study.patient_id,
        )

    def path(self, study: StudyRow) -> Path:
        """File of a study's features; its name changes when the frames change."""
        crc32 = self.prepared.record(study)["frames_crc32"]
        return self.folder / f"{stem(study.volume_name)}.{crc32:08x}.safetensors"

    def bank_path(self, grid_hw: tuple[int, int]) -> Path:
        """File of the noise bank of a frame size."""
        return self.folder / f"noise_{self.prepared.windows}_{grid_hw[0]}x{grid_hw[1]}.safetensors"

    def _of(self, study: StudyRow) -> Float[Tensor, "slice_pairs rows columns width"]:
        return self._read(self.path(study), (len(study.slice_indices) // 2,))

    def _read(
        self, path: Path, shape: tuple[int, ...]
    ) -> Float[Tensor, "planes rows columns width"]:
        """Maps a file's features, checking its checksum, its facts and its first dimensions."""
        if path not in self._checked and not (
            self.facts(path).items() <= facts_of(path, self.CODE).items()
        ):
            raise self._wrong(path, "it holds those of something else")
        mapped = map_tensor(path, FEATURES, self.CODE)
        if mapped.dim() != 4 or mapped.shape[: len(shape)] != shape:
            raise self._wrong(path, f"it holds {tuple(mapped.shape)}")
        self._checked.add(path)
        return mapped

    def _wrong(self, path: Path, found: str) -> CtscribeError:
        return CtscribeError(
            self.CODE, f"{path} must hold the features of its volume and encoder, but {found}"
        )

    def facts(self, path: Path) -> dict[str, str]:
        """Facts in a file's metadata, so that a renamed or moved file is noticed."""
        return {"name": path.name, "tower": self.folder.name}


@final
@dataclass(frozen=True)
class EncoderStore(FeatureStore):
    """Another encoder's features of all studies of a prepared folder.

    There is one file per volume, named after it, and one per noise volume. All hold [planes, rows,
    columns, width] in the encoder's dtype. A plane takes the place of a slice pair; the most
    cranial one comes first.
    """

    CODE: ClassVar = "E_ENCODER"

    encoder: Encoder = field(kw_only=True)

    def visual(self, study: StudyRow, noise_seed: int | None = None) -> Visual:
        """The visual input of a study or, with a seed, of noise on the same grid.

        Raises:
            CtscribeError: ``E_ENCODER``, also where noise is asked for and there is none.
        """
        path, features = self.path(study), self._of(study)
        if noise_seed is not None:
            self.require_noise([study])
            banked = self._noise_paths(self.grid(study))
            number = int(np.random.default_rng(noise_seed).integers(len(banked)))
            features = self._read(banked[number], tuple(features.shape[:3]))
        planes, rows, columns, _ = features.shape
        return Visual(
            grid_thw=(planes, rows * MERGE, columns * MERGE),
            position_mm=tuple(map_tensor(path, PLANES, self.CODE).tolist()),
            visual_tokens=features.flatten(0, 2),
            patient_id=None if noise_seed is not None else study.patient_id,
            grid_to_ras=tuple(map(tuple, map_tensor(path, GRID, self.CODE).tolist())) or None,
        )

    def path(self, study: StudyRow) -> Path:
        """File of a study's features."""
        return self.folder / f"{stem(study.volume_name)}.safetensors"

    def grid(self, study: StudyRow) -> tuple[int, int, int]:
        """(planes, rows, columns) of a study's features; the file is not checked."""
        planes, rows, columns, _ = map_tensor(self.path(study), FEATURES, self.CODE).shape
        return planes, rows, columns

    def noise_path(self, grid: tuple[int, int, int], number: int) -> Path:
        """File of a noise volume."""
        planes, rows, columns = grid
        return self.folder / f"noise_{planes}x{rows}x{columns}_{number:03d}.safetensors"

    def has_noise(self, studies: Sequence[StudyRow]) -> bool:
        """Whether there are noise volumes for the grids of all these studies."""
        return self._without_noise(studies) is None

    def require_noise(self, studies: Sequence[StudyRow]) -> None:
        """Checks that the encoder's features of noise exist for the grids of these studies.

        Raises:
            CtscribeError: ``E_ENCODER``.
        """
        if (grid := self._without_noise(studies)) is not None:
            raise CtscribeError(
                "E_ENCODER",
                f"noise must be among the features of the encoder {self.encoder.name} to be shown, "
                f"but of the grid {' × '.join(map(str, grid))} there is none",
            )

    def _without_noise(self, studies: Sequence[StudyRow]) -> tuple[int, int, int] | None:
        grids = {self.grid(study) for study in studies}
        return next((grid for grid in sorted(grids) if not self._noise_paths(grid)), None)

    def _noise_paths(self, grid: tuple[int, int, int]) -> list[Path]:
        return sorted(self.folder.glob(self.noise_path(grid, 0).name.replace("_000.", "_*.")))

    def _of(self, study: StudyRow) -> Float[Tensor, "planes rows columns width"]:
        return self._read(self.path(study), ())


def find_encoder(prepared: Prepared, name: str) -> Encoder:
    """The encoder of this name whose features were imported into a prepared folder.

    Raises:
        CtscribeError: ``E_ENCODER`` where there is none.
    """
    encoders = {each.name: each for each in encoders_in(prepared)}
    if name not in encoders:
        found = f"those of {', '.join(sorted(encoders))}" if encoders else "those of none"
        raise CtscribeError(
            "E_ENCODER",
            f"{prepared.folder} must hold features of the encoder {name}, but holds {found}",
        )
    return encoders[name]


def encoders_in(prepared: Prepared) -> list[Encoder]:
    """All encoders whose features were completely imported into a prepared folder."""
    paths = sorted(prepared.folder.glob(f"features/*/{ENCODER_FILE}"))
    return [read_encoder(path) for path in paths]


def open_encoder(
    prepared: Prepared, encoder: Encoder, studies: Sequence[StudyRow], *, noise: bool = False
) -> EncoderStore:
    """Opens another encoder's features and checks that all these studies have some.

    With ``noise`` it also checks that there are noise volumes for their grids.

    Raises:
        CtscribeError: ``E_ENCODER``.
    """
    there = find_encoder(prepared, encoder.name)
    if there != encoder:
        raise CtscribeError(
            "E_ENCODER",
            f"{prepared.folder} must hold features of the encoder that the run learned to read, "
            f"{encoder}, but holds those of {there}",
        )
    store = EncoderStore(prepared, prepared.features(encoder.hash), encoder=encoder)
    missing = [study.volume_name for study in studies if not store.path(study).exists()]
    if missing:
        raise CtscribeError(
            "E_ENCODER",
            f"every study must have features of the encoder {encoder.name}, but "
            f"{named(missing)} of {len(studies)} have none",
        )
    if noise:
        store.require_noise(studies)
    return store


def named(names: Sequence[str], at_most: int = 3) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
