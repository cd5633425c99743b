"""One way to prepare one volume, measured in this process alone.

``python prepare_contenders.py NAME VOLUME OUT`` prints CPU seconds and the peak of resident memory
over what the imports took. Each reads the same .nii.gz, orients it, brings it onto 0.75 × 0.75 ×
1.5 mm and into [−1, 1]; what it does beyond or short of that stands with its name.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

SPACING_MM = (0.75, 0.75, 1.5)
Run = Callable[[Path, Path], object]


def ours(keep: str) -> Run:
    """`prepare_into` as `ctscribe prepare --keep` calls it, with its checks, hashes and fsyncs."""
    import scipy.ndimage  # noqa: F401 - a worker has imported it before its second volume

    from ctscribe.data.prepared import prepare_into

    options = {"spacing_mm": SPACING_MM, "num_slices": 10}
    return lambda volume, out: prepare_into(
        out,
        "volume.nii.gz",
        volume,
        None,
        options,
        keep,  # type: ignore[arg-type]
    )


def ours_in_memory() -> Run:
    """What the peers do and no more: the whole volume, normalised, in memory."""
    import scipy.ndimage  # noqa: F401

    from ctscribe.scan.intensity import normalise
    from ctscribe.scan.read import read_volume
    from ctscribe.scan.resample import plan_resampling

    def run(volume: Path, out: Path) -> object:
        import numpy as np

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
    from monai.transforms import (  # type: ignore[import-not-found]
        Compose,
        LoadImage,
        Orientation,
        ScaleIntensityRange,
        Spacing,
    )

    transform = Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=SPACING_MM, mode="bilinear"),
            ScaleIntensityRange(-1000, 1000, -1, 1, clip=True),
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
        resampled = sitk.Resample(
            image,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            image.GetOrigin(),
            SPACING_MM,
            image.GetDirection(),
            -1024,
        )
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
    "ours_in_memory": ours_in_memory,
    "inflate_only": inflate_only,
    "monai": monai,
    "torchio": torchio,
    "simpleitk": simpleitk,
    "float64_recipe": float64_recipe,
}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_mb(field: str) -> float:
    """VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def main() -> None:
    name, volume, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if "torch" in name or name in ("monai", "float64_recipe"):
        import torch

        torch.set_num_threads(1)
    run = CONTENDERS[name]()
    volume.read_bytes()  # into the page cache
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before_mb, before_s = resident_mb("VmRSS"), cpu_s()
    kept = run(volume, out)
    told = {"cpu_s": cpu_s() - before_s, "peak_mb": resident_mb("VmHWM") - before_mb}
    del kept
    os.write(1, (json.dumps(told) + "\n").encode())


if __name__ == "__main__":
    main()
