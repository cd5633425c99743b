"""One way to prepare one volume, measured in this process alone.

``python -m benchmarks.prepare_contenders NAME VOLUME OUT`` prints CPU seconds and the peak of
resident memory over what the imports took. Each imports what it needs when it is made, because the
peers live in another environment; each reads the same .nii.gz, orients it, brings it onto 0.75 ×
0.75 × 1.5 mm and into [−1, 1]; what it does beyond or short of that stands with its name.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from benchmarks.timing import measured

SPACING_MM = (0.75, 0.75, 1.5)
Run = Callable[[Path, Path], object]


def ours(keep: Literal["slices", "all"]) -> Run:
    """`prepare_into` as `ctscribe prepare --keep` calls it, with its checks, hashes and fsyncs."""
    import scipy.ndimage  # noqa: F401 - a worker has imported it before its second volume

    from ctscribe.base.recipe import SlicesConfig, VolumeConfig
    from ctscribe.data.prepare_volume import Preparation, prepare_into

    how = Preparation(VolumeConfig(spacing_mm=SPACING_MM), SlicesConfig(), keep)
    return lambda volume, out: prepare_into(out, "volume.nii.gz", volume, None, how)


def ours_in_memory() -> Run:
    """What the peers do and no more: the whole volume, normalised, in memory."""
    import numpy as np
    import scipy.ndimage  # noqa: F401

    from ctscribe.scan.intensity import normalise
    from ctscribe.scan.read import read_volume
    from ctscribe.scan.resample import plan_resampling

    def run(volume: Path, out: Path) -> object:
        source, _ = read_volume(volume, study="volume")
        planned = plan_resampling(source, SPACING_MM)
        width, height, depth = planned.shape_xyz
        normalised = np.empty((depth, height, width), dtype=np.float32)
        for target, plane in zip(normalised, planned.slices(range(depth)), strict=True):
            normalise(plane, out=target)
        return normalised

    return run


def inflate_only() -> Run:
    """Only inflating: isal into one buffer, to the end, so that gzip's CRC is checked."""
    import numpy as np
    from isal import igzip

    def run(volume: Path, out: Path) -> object:
        buffer = np.empty(512 * 512 * 300 * 2 + 352, dtype=np.uint8)
        view, filled = buffer.data, 0
        with volume.open("rb") as file, igzip.IGzipFile(fileobj=file, mode="rb") as stream:
            while count := stream.readinto(view[filled : filled + (1 << 18)]):
                filled += count
        assert filled == buffer.size
        return buffer

    return run


def monai() -> Run:
    """MONAI's transforms for this; float32 throughout, linear."""
    from monai import transforms as ready  # type: ignore[import-not-found]

    transform = ready.Compose(
        [
            ready.LoadImage(image_only=True, ensure_channel_first=True),
            ready.Orientation(axcodes="RAS", labels=None),
            ready.Spacing(pixdim=SPACING_MM, mode="bilinear"),
            ready.ScaleIntensityRange(-1000, 1000, -1, 1, clip=True),
        ]
    )
    return lambda volume, out: transform(str(volume))


def torchio() -> Run:
    """TorchIO's transforms for this."""
    import torchio as tio  # type: ignore[import-not-found]

    transform = tio.Compose(
        [
            tio.ToCanonical(),
            tio.Resample(SPACING_MM, image_interpolation="linear"),
            tio.Clamp(-1000, 1000),
            tio.RescaleIntensity(out_min_max=(-1, 1), in_min_max=(-1000, 1000)),
        ]
    )
    return lambda volume, out: transform(tio.ScalarImage(volume)).data


def simpleitk() -> Run:
    """SimpleITK, linear on int16, then float32; it checks neither CRC nor length."""
    import numpy as np
    import SimpleITK as sitk  # type: ignore[import-not-found]  # noqa: N813 - its usual name

    def run(volume: Path, out: Path) -> object:
        image = sitk.DICOMOrient(sitk.ReadImage(str(volume)), "LPS")
        size = [
            int(n * mm / target)
            for n, mm, target in zip(image.GetSize(), image.GetSpacing(), SPACING_MM, strict=True)
        ]
        where = (image.GetOrigin(), SPACING_MM, image.GetDirection())
        resampled = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *where, -1024)
        array = sitk.GetArrayViewFromImage(resampled).astype(np.float32)
        np.clip(array, -1000, 1000, out=array)
        array /= 1000
        return array

    return run


def float64_recipe() -> Run:
    """The plain recipe, as CT-CLIP's script has it."""
    import nibabel as nib
    import numpy as np
    import torch

    def run(volume: Path, out: Path) -> object:
        image = nib.load(volume)
        hu = 1.0 * image.get_fdata() + 0.0
        current = image.header.get_zooms()
        zyx = torch.from_numpy(hu.transpose(2, 0, 1)).unsqueeze(0).unsqueeze(0)
        ratio = [mm / target for mm, target in zip(current, SPACING_MM, strict=True)]
        size = [int(n * scale) for n, scale in zip(hu.shape, ratio, strict=True)]
        resampled = torch.nn.functional.interpolate(
            zyx, size=(size[2], size[0], size[1]), mode="trilinear", align_corners=False
        )
        return np.clip(resampled[0, 0].numpy(), -1000, 1000) / 1000

    return run


CONTENDERS: dict[str, Callable[[], Run]] = {
    "ours_keep_slices": lambda: ours("slices"),
    "ours_keep_all": lambda: ours("all"),
    **{
        maker.__name__: maker
        for maker in (ours_in_memory, inflate_only, monai, torchio, simpleitk, float64_recipe)
    },
}


def main() -> None:
    name, volume, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if name in ("monai", "torchio", "float64_recipe"):
        import torch

        torch.set_num_threads(1)
    run = CONTENDERS[name]()
    volume.read_bytes()  # into the page cache
    _, cost = measured(lambda: run(volume, out))
    os.write(1, (json.dumps(cost._asdict()) + "\n").encode())


if __name__ == "__main__":
    main()
