"""A chest of ellipses as NIfTI and as DICOM, for tests that need a whole readable scan."""

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ctscribe.base.types import SpacingMm
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.volume import CTVolume

Edit = Callable[[FileDataset, int], None]
SHAPE = (160, 128, 24)
SPACING_MM = (2.0, 2.0, 5.0)
ORIENTATIONS = [
    f"{a}{b}{c}"
    for axes in ("LR PA IS", "LR IS PA", "PA LR IS", "PA IS LR", "IS LR PA", "IS PA LR")
    for x, y, z in [axes.split()]
    for a in x
    for b in y
    for c in z
]
"""All 48 ways in which axes can lie."""


def chest(
    shape: tuple[int, int, int] = SHAPE, spacing_mm: tuple[float, float, float] = SPACING_MM
) -> CTVolume:
    """Body, two lungs, air around, in HU; RAS, noise of 10 HU; nothing on its left is mirrored."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = 40
    for side in (-0.42, 0.42):
        hu[((x - side) / 0.33) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
    hu += np.random.default_rng(0).normal(0, 10, shape)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-150.0, -120.0, 700.0)
    return CTVolume(np.asfortranarray(np.rint(hu).astype(np.int16)), affine)


def resample(volume: CTVolume, spacing_mm: SpacingMm, *, antialias: bool = False) -> CTVolume:
    """A whole volume on another grid, float32 HU."""
    grid = plan_resampling(volume, spacing_mm, antialias=antialias)
    return CTVolume(grid.stack(range(grid.shape_xyz[2])), grid.affine)


CHEST = CTVolume(np.maximum(chest().hu, -1024), chest().affine)
"""As it is read, whatever it was written as."""


def image_of(volume: CTVolume = CHEST) -> nib.Nifti1Image:
    """A NIfTI-1 image with sform and qform in mm."""
    image = nib.Nifti1Image(volume.hu, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    return image


def slice_of(z: int, volume: CTVolume = CHEST, series: str = "1.2.3") -> FileDataset:
    """One classic CT image of the volume, which is in RAS; rows run left, columns posterior."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(z)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.PatientName = "P1", "Doe^Jane"
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", series, 4
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.InstanceNumber = z + 1
    image.Rows, image.Columns = volume.shape_xyz[1], volume.shape_xyz[0]
    x_mm, y_mm, z_mm = volume.spacing_mm
    image.PixelSpacing, image.SliceThickness = [y_mm, x_mm], z_mm
    last = [volume.shape_xyz[0] - 1, volume.shape_xyz[1] - 1, z, 1]
    x, y, height = (volume.affine @ last)[:3]
    image.ImagePositionPatient = [-x, -y, height]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation, image.RescaleSlope, image.RescaleIntercept = 0, 1, -1024
    stored = volume.hu[::-1, ::-1, z].T.astype(np.int32) + 1024
    image.PixelData = stored.astype(np.uint16).tobytes()
    return image


def bytes_of(image: FileDataset) -> bytes:
    """The file."""
    content = BytesIO()
    image.save_as(content, enforce_file_format=True)
    return content.getvalue()


def write_series(
    folder: Path,
    edit: Edit | None = None,
    *,
    volume: CTVolume = CHEST,
    series: str = "1.2.3",
    slices: Iterable[int] | None = None,
) -> Path:
    """A folder with one file per slice, edited before it is written."""
    folder.mkdir(exist_ok=True)
    for z in range(volume.shape_xyz[2]) if slices is None else slices:
        image = slice_of(z, volume, series)
        if edit:
            edit(image, z)
        (folder / f"{series}-{(z * 7) % 101:03}.dcm").write_bytes(bytes_of(image))
    return folder


def on_slice(index: int | None, **tags: object) -> Edit:
    """Sets tags of one slice, or of all; None removes."""

    def edit(image: FileDataset, z: int) -> None:
        for tag, value in tags.items() if index in (None, z) else ():
            if value is None:
                delattr(image, tag)
            else:
                setattr(image, tag, value)

    return edit
