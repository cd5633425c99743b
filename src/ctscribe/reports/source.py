"""What the user points at → its volumes: a CT-RATE tree, or a manifest of own scans."""

from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.reports.listing import ListedVolume, list_volumes
from ctscribe.reports.manifest import list_manifest
from ctscribe.reports.reconstructions import Reconstructions
from ctscribe.rows import SkippedRow


def list_source(
    source: Path, thin_mm: float, reconstructions: Reconstructions = "one"
) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Lists the volumes of a folder in CT-RATE's shape or of a ``.csv`` or ``.jsonl`` manifest.

    Args:
        source: Folder or manifest.
        thin_mm: See `choose_reconstructions`; a manifest names each volume itself.
        reconstructions: See `choose_reconstructions`.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_SOURCE``, or what is wrong with its tables.
    """
    if source.is_dir():
        return list_volumes(source, thin_mm, reconstructions)
    if source.suffix.lower() in (".csv", ".jsonl"):
        return list_manifest(source)
    if not source.exists():
        raise CtscribeError("E_MISSING", f"{source} must exist")
    raise CtscribeError(
        "E_SOURCE",
        f"{source} must be a folder in CT-RATE's shape or a manifest ending in .csv or .jsonl, but "
        "is another file",
    )
