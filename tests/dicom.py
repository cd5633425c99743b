"""DICOM series of a volume, each image of which may be edited before it is written."""

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from ctscribe.scan.volume import CTVolume
from tests.scans import CHEST

Edit = Callable[[FileDataset, int], None]


def blank(sop_class: UID, series: str, name: str) -> FileDataset:
    """An image of a series without pixels and place; the same name gives the same identifier.

    What tells the patient is planted: no output may repeat it.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.PatientName = "PLANTED-ID", "PLANTED^NAME"
    image.PatientBirthDate = "19010203"
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", series, 4
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    return image


def slice_of(z: int, volume: CTVolume = CHEST, series: str = "1.2.3") -> FileDataset:
    """One classic CT image of the volume, which is in RAS; rows run left, columns posterior."""
    image = blank(CTImageStorage, series, str(z))
    columns, rows, depth = volume.shape_xyz
    image.InstanceNumber = depth - z  # against the order of positions, which is what counts
    image.Rows, image.Columns = rows, columns
    x_mm, y_mm, z_mm = volume.spacing_mm
    image.PixelSpacing, image.SliceThickness = [y_mm, x_mm], z_mm
    x, y, height = (volume.affine @ [columns - 1, rows - 1, z, 1])[:3].round(6).tolist()
    image.ImagePositionPatient = [-x, -y, height]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    stored = volume.hu[::-1, ::-1, z].T.astype(np.int32) + 1024
    image.PixelData = stored.clip(0).astype(np.uint16).tobytes()
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


def as_syntax(uid: UID) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        image.file_meta.TransferSyntaxUID = uid
        if uid == ExplicitVRBigEndian:
            image.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()

    return edit


def as_rle(image: FileDataset, z: int) -> None:
    image.compress(RLELossless, generate_instance_uid=False)


def as_jpeg_2000(image: FileDataset, z: int) -> None:
    stream = BytesIO()
    plane = np.frombuffer(image.PixelData, np.uint16).reshape(image.Rows, image.Columns)
    Image.fromarray(plane).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.BitsStored, image.HighBit = 16, 15
    image.PixelData = encapsulate([stream.getvalue()])
    image["PixelData"].VR = "OB"


def group(**tags: object) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for tag, value in tags.items():
        setattr(item, tag, value)
    return [item]


def enhanced_of(volume: CTVolume) -> FileDataset:
    """All slices in one file, from the head down; what they share is stated once."""
    slices = [slice_of(z, volume) for z in reversed(range(volume.shape_xyz[2]))]
    image = slice_of(0, volume)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    image.NumberOfFrames = len(slices)
    stated = {
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    }
    image.SharedFunctionalGroupsSequence = group(
        **{name: group(**{tag: image[tag].value for tag in tags}) for name, tags in stated.items()}
    )
    image.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=group(ImagePositionPatient=one.ImagePositionPatient),
            CTImageFrameTypeSequence=group(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
        )[0]
        for one in slices
    ]
    image.PixelData = b"".join(one.PixelData for one in slices)
    for tag in ("ImagePositionPatient", *(tag for tags in stated.values() for tag in tags)):
        delattr(image, tag)
    return image
