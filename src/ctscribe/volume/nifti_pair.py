"""The two files of a NIfTI .hdr/.img pair."""

from pathlib import Path

from ctscribe.errors import CtscribeError


def header_path(path: Path) -> Path:
    """The header of a pair when its voxels are given and a header lies beside them."""
    return _partner(path, ".img", ".hdr") or path


def image_path(header: Path, study: str) -> Path:
    """The voxels that belong to a header.

    Raises:
        CtscribeError: ``E_NIFTI_PAIR`` when no file of that name lies beside it.
    """
    found = _partner(header, ".hdr", ".img")
    if found is None:
        raise CtscribeError(
            "E_NIFTI_PAIR",
            f"{study} must have its .img file beside its .hdr file, but has none of that name",
        )
    return found


def pair_of(path: Path) -> list[Path]:
    """Both files of a pair, or the one file."""
    header = header_path(path)
    image = _partner(header, ".hdr", ".img")
    return [header] if image is None else [header, image]


def _partner(path: Path, own: str, other: str) -> Path | None:
    packed = path.name.lower().endswith(".gz")
    stem = path.with_suffix("") if packed else path
    if stem.suffix.lower() != own:
        return None
    wanted = other.upper() if stem.suffix.isupper() else other
    names = (stem.with_suffix(wanted), stem.with_suffix(f"{wanted}.gz"))
    return next((name for name in names if name.is_file()), None)
