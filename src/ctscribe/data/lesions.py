"""A phantom's truth, or masks in a table or folders → the boxes of lesions, by volume."""

from collections.abc import Iterator, Mapping
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_any_json
from ctscribe.base.outside_text import named_path, one_form
from ctscribe.base.rows import TruthRow, read_rows
from ctscribe.base.tables import check_columns, read_csv
from ctscribe.base.types import BoxMm
from ctscribe.data.listing import ListedVolume
from ctscribe.data.manifest import each_in_manifest, finding_of
from ctscribe.data.prepared import stem
from ctscribe.scan.boxes import boxes_of_mask
from ctscribe.scan.masks import read_masks
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report


class Place(NamedTuple):
    """A finding and its box."""

    finding: str
    """One of `findings.FINDINGS`."""
    box_mm: BoxMm
    """RAS+."""


Places = Mapping[str, tuple[Place, ...]]
"""By volume name without its suffix; of a volume that is not in it no place is known."""

_COLUMNS = ("volume", "finding", "mask")


def read_where(path: Path, *, allow_outside: bool = False) -> Places:
    """Reads the places of lesions from any of five forms.

    Args:
        path: The manifest of own scans, whose column ``masks`` names folders of masks.
            ``.jsonl``: a phantom's ``truth.jsonl``. ``.csv``: own data, one mask per row, with
            columns ``volume``, ``finding`` (one of the 18) and ``mask`` (a NIfTI file, relative
            to the table). A folder: per volume a folder of masks named after findings, as in
            RadGenome-ChestCT, or per volume a file with one mask per sentence that
            ``dataset.json`` beside them names, as in ReXGroundingCT.
        allow_outside: Whether a manifest or a table may name masks outside its folder.

    Raises:
        CtscribeError: ``E_WHERE`` when it is none of these, ``E_MASK`` for a damaged mask,
            ``E_MISSING`` when there is nothing, or what is wrong with a table as text.
    """
    if not path.exists():
        raise CtscribeError("E_MISSING", f"{path} must exist")
    if _is_manifest(path):
        listed = _from_manifest(path, allow_outside)
    elif path.suffix == ".jsonl":
        return _from_truth(path)
    elif path.suffix == ".csv":
        listed = _from_table(path, allow_outside)
    elif (path / "dataset.json").is_file():
        listed = _from_sentences(path)
    elif path.is_dir():
        listed = _from_folders(path)
    else:
        raise _refusal(path, "it is neither a .jsonl or .csv file nor a folder")
    places: dict[str, tuple[Place, ...]] = {}
    for name, found in listed:
        places[name] = (*places.get(name, ()), *found)
    if not places:
        raise _refusal(path, "it names no volume")
    return places


def _is_manifest(path: Path) -> bool:
    """Whether a table's first line names patients, as a manifest's does and no other's."""
    if path.suffix not in (".csv", ".jsonl") or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"patient" in file.readline(1 << 20)


def _from_manifest(path: Path, allow_outside: bool) -> Iterator[tuple[str, list[Place]]]:
    entries = each_in_manifest(path, allow_outside=allow_outside)
    for listed in entries:
        if isinstance(listed, ListedVolume) and listed.masks_dir is not None:
            name = stem(listed.volume_name)
            yield name, _from_folder(name, listed.masks_dir)


def _from_truth(path: Path) -> Places:
    rows = read_rows(path, TruthRow)
    for finding in (each.finding for row in rows for each in row.lesions):
        if finding not in FINDINGS:
            raise _refusal(path, f"it names the finding {finding[:80]!r}")
    return {
        stem(row.volume_name): tuple(Place(each.finding, each.box_mm) for each in row.lesions)
        for row in rows
    }


def _from_table(path: Path, allow_outside: bool) -> Iterator[tuple[str, list[Place]]]:
    table = read_csv(path, "E_WHERE")
    check_columns(table, _COLUMNS, code="E_WHERE")
    for number, cells in table.rows.items():
        volume, finding, mask = (cells[column].strip() for column in _COLUMNS)
        known = finding_of(Path(finding))
        if known is None or not volume or not mask:
            what = "lacks a cell" if not (volume and mask) else f"names the finding {finding!r}"
            raise _refusal(path, f"row {number} {what}")
        place = named_path(path.parent, mask, allow_outside=allow_outside)
        if place is None:
            fault = f"row {number} names a mask outside its folder, without --allow-outside"
            raise _refusal(path, fault)
        yield stem(volume), _places(stem(volume), place, [[known]])


def _from_folders(path: Path) -> Iterator[tuple[str, list[Place]]]:
    for folder in sorted(each for each in path.iterdir() if each.is_dir()):
        yield one_form(folder.name), _from_folder(folder.name, folder)


def _from_folder(name: str, folder: Path) -> list[Place]:
    found: list[Place] = []
    for mask in sorted(folder.glob("*.nii*")):
        finding = finding_of(mask)
        if finding is not None:  # organs and regions are masks too, but no findings
            found += _places(name, mask, [[finding]])
    return found


def _from_sentences(path: Path) -> Iterator[tuple[str, list[Place]]]:
    listed = read_any_json(path / "dataset.json")
    try:
        studies = [
            (str(study["name"]), [study["findings"][str(i)] for i in range(len(study["findings"]))])
            for split in listed.values()
            for study in split
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise _refusal(
            path, "its dataset.json does not list studies with name and findings by number"
        ) from error
    files = {one_form(p.name): p for p in sorted(path.rglob("*.nii*")) if p.is_file()}
    for name, sentences in ((one_form(name), sentences) for name, sentences in studies):
        if name in files:
            labels = [label_report(sentence) for sentence in sentences]
            findings = [[*compress(FINDINGS, each)] for each in labels]
            yield stem(name), _places(stem(name), files[name], findings)


def _places(name: str, path: Path, findings: list[list[str]]) -> list[Place]:
    """Reads the masks of one volume; the n-th shows ``findings[n]``."""
    told = f"{path.name} of {Path(name).name}"  # paths may tell who the patient is
    masks, affine = read_masks(path, told)
    if len(masks) != len(findings):
        raise CtscribeError(
            "E_MASK",
            f"{told} must hold {len(findings)} masks, one per finding named, but it holds "
            f"{len(masks)}",
        )
    places = []
    for mask, named in zip(masks, findings, strict=True):
        boxes = boxes_of_mask(mask, affine) if named else []
        places += [Place(finding, box) for finding in named for box in boxes]
    return places


def _refusal(path: Path, found: str) -> CtscribeError:
    return CtscribeError(
        "E_WHERE",
        f"{path} must be a manifest with masks, a phantom's truth.jsonl, a .csv with "
        f"{', '.join(_COLUMNS)}, or a folder of masks by volume, but {found}",
    )
