"""Features of a 3D encoder with random weights, as whoever ran it leaves them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ctscribe.base.rows import FEATURE_TABLES, FeatureTableRow, StudyRow, write_rows
from ctscribe.data.prepared import Prepared, stem

WIDTH = 128
"""As many as the tiny language model has: what is not projected, or twice, is found by its numbers
alone."""
PATCH_PX = 14
Rows = tuple[tuple[float, float, float, float], ...]


def random_encoder(side_px: int = PATCH_PX) -> nn.Module:
    """Reads [1, 1, planes, height, width], sees each plane beside its neighbours."""
    torch.manual_seed(7)
    patches = nn.Conv3d(1, WIDTH, (1, side_px, side_px), stride=(1, side_px, side_px))
    return nn.Sequential(patches, nn.GELU(), nn.Conv3d(WIDTH, WIDTH, 3, padding=1)).eval()


@torch.no_grad()
def encode(encoder: nn.Module, volume: np.ndarray) -> Tensor:
    """Features [planes, rows, columns, width] of grey levels [planes, height, width]."""
    shown = torch.from_numpy(np.array(volume, dtype=np.float32) / 255)[None, None]
    features: Tensor = encoder(shown)[0]
    return features.permute(1, 2, 3, 0).contiguous()


def encode_prepared(prepared: Prepared, encoder: nn.Module) -> dict[str, Tensor]:
    """Of every study; what stands for its volume are its frames."""
    return {
        study.volume_name: encode(encoder, prepared.frames(study)[..., 0])
        for study in prepared.studies
    }


def frame_grid(study: StudyRow, side_px: int = PATCH_PX) -> Rows:
    """Affine of a grid with a plane for each frame and a cell for each patch of it."""
    middle, side = (side_px - 1) / 2, float(side_px)
    first, second = study.slice_indices[:2]
    to_frame = [
        [0, 0, side, middle],
        [0, side, 0, middle],
        [second - first, 0, 0, first],
        [0, 0, 0, 1],
    ]
    return as_rows(np.array(study.frame_to_ras) @ np.array(to_frame))


def as_rows(affine: np.ndarray) -> Rows:
    a, b, c, d = map(tuple, affine.tolist())
    return a, b, c, d


def write_tables(
    folder: Path,
    tables: Mapping[str, Tensor],
    affines: Mapping[str, Rows],
    noise: Sequence[Tensor] = (),
) -> list[FeatureTableRow]:
    """One flat safetensors file per volume, which names it, and their list."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"noise_{number}": table for number, table in enumerate(noise)}
    rows = []
    for name, table in {**tables, **named}.items():
        file = f"{stem(name)}.safetensors"
        save_file({"features": table.flatten(0, 2)}, folder / file, {"volume": name})
        planes, height, width = table.shape[:3]
        place = {"noise": True} if name in named else {"affine": affines[name]}
        row = {"volume_name": name, "file": file, "grid": (planes, height, width), **place}
        rows.append(FeatureTableRow.model_validate(row))
    write_rows(folder / FEATURE_TABLES, rows)
    return rows


def write_encoded(folder: Path, prepared: Prepared, num_noise: int = 0) -> list[FeatureTableRow]:
    """Tables of all studies of a prepared folder, and of noise."""
    encoder = random_encoder()
    tables = encode_prepared(prepared, encoder)
    height, width = prepared.frames(prepared.studies[0]).shape[1:3]
    planes = len(prepared.studies[0].slice_indices)
    draw = np.random.default_rng(0)
    noise = [encode(encoder, 255 * draw.random((planes, height, width))) for _ in range(num_noise)]
    affines = {study.volume_name: frame_grid(study) for study in prepared.studies}
    return write_tables(folder, tables, affines, noise)
