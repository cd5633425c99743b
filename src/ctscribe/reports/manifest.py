"""A data set of one's own: a CSV or JSONL file with one row per scan.

Columns: ``volume`` (a NIfTI file, or the folder or zip of a DICOM series, relative to the
manifest's folder and inside it; links are followed), ``patient``, ``scan``, and ``report`` or
``findings`` with ``impression``; if wanted ``split`` (train or valid, which becomes the test
split), ``manufacturer``, ``sex``, ``age`` (years), ``masks`` (a folder of NIfTI masks, each named
after the finding that it shows) and CT-RATE's 18 findings (0 or 1).
"""

import os.path
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ctscribe.errors import CtscribeError
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.listing import ListedVolume
from ctscribe.reports.manifest_cells import Cells, read_cells
from ctscribe.reports.sections import split_report
from ctscribe.rows import SkippedRow

_MAX_NAME = 100
_MAX_TEXT = 100_000
_MAX_AGE_YEARS = 130
_NUM_TOLD = 3


def list_manifest(path: Path) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Reads a manifest; its rows must all be sound, its volumes may be missing.

    A scan's name, with everything but letters, digits, ``.``, ``_`` and ``-`` replaced by
    ``-``, names its outputs.

    Args:
        path: ``.csv`` or ``.jsonl``, UTF-8.

    Returns:
        Volumes in the order of their rows, and those without a file or a text.

    Raises:
        CtscribeError: ``E_MANIFEST`` with the rows at fault, ``E_ENCODING`` or ``E_MISSING``.
    """
    rows = read_cells(path)
    volumes: list[ListedVolume] = []
    skipped: list[SkippedRow] = []
    faults = _clashes(rows)
    for number, cells in rows.items():
        try:
            volumes.append(_listed(path.parent, cells))
        except CtscribeError as error:
            if error.code == "E_MANIFEST":
                faults.append((number, error.told))
            else:
                name = safe_name(cells["scan"])
                skipped.append(SkippedRow(volume_name=name, code=error.code, reason=error.sentence))
    if faults:
        raise _refusal(path, faults)
    return volumes, skipped


def safe_name(scan: str) -> str:
    """A scan's name as file names may hold it; at most 100 characters, maybe none."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", scan)
    while name.lower().endswith((".gz", ".nii")):
        name = name[: name.rindex(".")]
    return name.strip("-.")[:_MAX_NAME]


def _refusal(path: Path, faults: list[tuple[int, str]]) -> CtscribeError:
    told = [f"row {number}: {fault}" for number, fault in sorted(faults)]
    if len(told) > _NUM_TOLD:
        told[_NUM_TOLD:] = [f"and {len(told) - _NUM_TOLD} more"]
    return CtscribeError(
        "E_MANIFEST",
        f"{path} must describe one scan in each row, but {'; '.join(told)}",
    )


def _clashes(rows: dict[int, Cells]) -> list[tuple[int, str]]:
    """Rows that say what another row has said, or put one patient into both splits."""

    def repeated(key: Callable[[Cells], str], fault: str) -> Iterable[tuple[int, str]]:
        first: dict[str, int] = {}
        for number, cells in rows.items():
            before = first.setdefault(key(cells), number)
            if before != number:
                yield number, fault.format(before=before)

    faults = [
        *repeated(lambda cells: safe_name(cells["scan"]).casefold(), "scan as in row {before}"),
        *repeated(lambda cells: os.path.normpath(cells["volume"]), "volume as in row {before}"),
    ]
    splits: dict[str, tuple[str, int]] = {}
    for number, cells in rows.items():
        split, before = splits.setdefault(cells["patient"], (cells["split"], number))
        if split != cells["split"]:
            faults.append((number, f"patient in another split than in row {before}"))
    return faults


def _listed(folder: Path, cells: Cells) -> ListedVolume:
    scan, patient = _name(cells, "scan"), _name(cells, "patient")
    name = safe_name(scan)
    if not name:
        raise _fault(f"scan must have a letter or digit, but {scan!r} has none")
    path = _inside(folder, cells, "volume")
    masks_dir = _inside(folder, cells, "masks") if cells["masks"] else None
    if masks_dir is not None and not any(map(finding_of, masks_dir.glob("*.nii*"))):
        raise _fault("masks must be a folder of masks named after findings, but is none")
    if cells["split"] not in ("train", "valid"):
        raise _fault(f"split must be train or valid, but is {cells['split'][:20]!r}")
    labels, age_years = _labels(cells), _age_years(cells["age"])
    if cells["sex"] not in ("", "F", "M", "O"):
        raise _fault(f"sex must be F, M, O or empty, but is {cells['sex'][:20]!r}")
    findings, impression = _texts(name, cells)
    if not path.exists():
        raise CtscribeError(
            "E_MISSING",
            f"{name} must be on disk because the manifest names it, but is not",
        )
    return ListedVolume(
        volume_name=name,
        patient_id=patient,
        scan_id=scan,
        source_split="valid" if cells["split"] == "valid" else "train",
        path=path,
        metadata=None,
        findings=findings,
        impression=impression,
        labels=labels,
        manufacturer=cells["manufacturer"] or None,
        sex=cells["sex"] or None,
        age_years=age_years,
        masks_dir=masks_dir,
    )


def finding_of(mask: Path) -> str | None:
    """The finding after which a mask is named, whatever its capitals and separators; or None."""
    plain = re.sub(r"[\W_]+", " ", mask.name.removesuffix(".gz").removesuffix(".nii")).strip()
    return next((name for name in FINDINGS if name.lower() == plain.lower()), None)


def _fault(sentence: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", sentence)


def _name(cells: Cells, column: str, at_most: int = _MAX_NAME) -> str:
    cell = cells[column]
    if not cell or len(cell) > at_most or not cell.isprintable():
        raise _fault(f"{column} must be 1 to {at_most} printable characters, but is not")
    return cell


def _inside(folder: Path, cells: Cells, column: str) -> Path:
    """The path of a cell, which must not lead out of the manifest's folder.

    A manifest comes with the data it names; one from elsewhere shall not reach other files.
    """
    relative = PurePosixPath(os.path.normpath(_name(cells, column, at_most=4096)))
    if relative.is_absolute() or relative.parts[:1] in ((), ("..",)):
        raise _fault(f"{column} must be a path inside the manifest's folder, but leads out of it")
    return folder / relative


def _texts(name: str, cells: Cells) -> tuple[str, str]:
    if max(len(cells[column]) for column in ("report", "findings", "impression")) > _MAX_TEXT:
        raise _fault(f"its texts must have at most {_MAX_TEXT} characters, but one has more")
    texts = (cells["findings"], cells["impression"])
    findings, impression = split_report(cells["report"]) if cells["report"] else texts
    if not findings.strip():
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"{name} must have findings in its report, but they are empty",
        )
    findings, impression = (" ".join(text.split()) for text in (findings, impression))
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in findings + impression):
        raise _fault("its texts must be plain, but one has a control sign or half a character")
    return findings, impression


def _labels(cells: Cells) -> tuple[int, ...] | None:
    if FINDINGS[0] not in cells:
        return None
    for finding in FINDINGS:
        if cells[finding] not in ("0", "1"):
            raise _fault(f"{finding} must be 0 or 1, but is {cells[finding][:20]!r}")
    return tuple(int(cells[finding]) for finding in FINDINGS)


def _age_years(cell: str) -> float | None:
    if not cell:
        return None
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", cell) or float(cell) > _MAX_AGE_YEARS:
        raise _fault(f"age must be years from 0 to {_MAX_AGE_YEARS}, but is {cell[:20]!r}")
    return float(cell)
