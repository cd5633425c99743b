"""A phantom's truth, or masks named by a table or in folders → masks or boxes of lesions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_any_json
from ctscribe.base.outside_text import named_path, nfc
from ctscribe.base.rows import TruthRow, read_rows
from ctscribe.base.tables import check_columns, read_csv
from ctscribe.base.types import BoxMm
from ctscribe.data.listing import ListedVolume
from ctscribe.data.manifest import each_in_manifest, finding_of
from ctscribe.data.prepared import stem
from ctscribe.scan.boxes import boxes_of_mask
from ctscribe.scan.masks import read_masks
from ctscribe.scan.types import Affine
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report


class Place(NamedTuple):
    """A finding and its box."""

    finding: str
    """One of `findings.FINDINGS`."""
    box_mm: BoxMm
    """RAS+."""


Places = Mapping[str, tuple[Place, ...]]
"""Volume name without suffix → its lesions; unknown for volumes that are not in it."""

SENTENCES = "dataset.json"
"""The file of ReXGroundingCT that names the sentences of each volume's masks."""

_COLUMNS = ("volume", "finding", "mask")


class MaskFile(NamedTuple):
    """A file with masks of one volume, not read yet."""

    path: Path
    label: str
    """Its name in errors, without the folder, which may identify a patient."""
    shown: tuple[tuple[str, ...], ...]
    """For each mask, the findings that it shows (maybe none), or the name of its sentence."""

    def read(self) -> tuple[list[Bool[np.ndarray, "x y z"]], Affine]:
        """Reads its masks, one for each entry of ``shown``, and their affine.

        Raises:
            CtscribeError: ``E_MASK``.
        """
        masks, affine = read_masks(self.path, self.label)
        if len(masks) != len(self.shown):
            raise CtscribeError(
                "E_MASK",
                f"{self.label} must hold {len(self.shown)} masks, one per finding named, but it "
                f"holds {len(masks)}",
            )
        return masks, affine


MaskFiles = Mapping[str, tuple[MaskFile, ...]]
"""Volume name without suffix → its files."""


def read_where(path: Path, *, allow_outside: bool = False) -> Places:
    """Reads the places of lesions from any of five forms.

    Args:
        path: A phantom's ``truth.jsonl``, or what `list_masks` takes.
        allow_outside: Whether a manifest or a table may name masks outside its folder.

    Raises:
        CtscribeError: ``E_WHERE`` when it is none of these, ``E_MASK`` for a damaged mask,
            ``E_MISSING`` when it does not exist, or as `read_csv` and `each_in_manifest`.
    """
    if is_boxes(path):
        return _from_truth(path)
    masks = list_masks(path, allow_outside=allow_outside)
    return {name: tuple(chain(*map(_places, files))) for name, files in masks.items()}


def is_boxes(path: Path) -> bool:
    """Whether a file is JSONL that is no manifest, and so holds boxes in place of masks."""
    return path.suffix == ".jsonl" and not _is_manifest(path)


def list_masks(path: Path, *, allow_outside: bool = False) -> MaskFiles:
    """Lists the masks of lesions in any of four forms, without reading them.

    Args:
        path: The manifest of own scans, whose column ``masks`` names folders of masks.
            ``.csv``: own data, one mask per row, with columns ``volume``, ``finding`` (one of the
            18) and ``mask`` (a NIfTI file, relative to the table). A folder: per volume a folder
            of masks named after findings, as in RadGenome-ChestCT, or per volume a file with one
            mask per sentence that ``dataset.json`` beside them names, as in ReXGroundingCT.
        allow_outside: Whether a manifest or a table may name masks outside its folder.

    Raises:
        CtscribeError: ``E_WHERE`` when it is none of these, ``E_MISSING`` when it does not exist,
            or as `read_csv` and `each_in_manifest`.
    """
    if not path.exists():
        raise CtscribeError("E_MISSING", f"{path} must exist")
    if _is_manifest(path):
        listed = _from_manifest(path, allow_outside)
    elif path.suffix == ".csv":
        listed = _from_table(path, allow_outside)
    elif (path / SENTENCES).is_file():
        listed = _from_sentences(path)
    elif path.is_dir():
        listed = _from_folders(path)
    else:
        raise _refusal(path, "it is neither a .jsonl or .csv file nor a folder")
    files: dict[str, tuple[MaskFile, ...]] = {}
    for name, found in listed:
        files[name] = (*files.get(name, ()), *found)
    if not files:
        raise _refusal(path, "it names no volume")
    return files


def list_sentence_masks(folder: Path, sentences: Path) -> MaskFiles:
    """Lists the masks of all sentences, also of those that state none of the 18 findings.

    Args:
        folder: One file per volume, with a mask for each sentence, in order.
        sentences: ReXGroundingCT's ``dataset.json``.

    Returns:
        Volume name → its file, whose masks show ``sentence 1``, ``sentence 2`` and so on.

    Raises:
        CtscribeError: ``E_WHERE``, ``E_JSON`` and ``E_MISSING``.
    """
    return {
        name: (_mask_file(name, file, [(f"sentence {n + 1}",) for n in range(len(said))]),)
        for name, file, said in _sentence_files(folder, sentences)
    }


def _is_manifest(path: Path) -> bool:
    """Whether a table is a manifest: only a manifest's first line contains ``patient``."""
    if path.suffix not in (".csv", ".jsonl") or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"patient" in file.readline(1 << 20)


Listed = Iterator[tuple[str, list[MaskFile]]]
"""Volumes with files of masks, perhaps none."""


def _from_manifest(path: Path, allow_outside: bool) -> Listed:
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


def _from_table(path: Path, allow_outside: bool) -> Listed:
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
        yield stem(volume), [_mask_file(stem(volume), place, [(known,)])]


def _from_folders(path: Path) -> Listed:
    for folder in sorted(each for each in path.iterdir() if each.is_dir()):
        yield nfc(folder.name), _from_folder(folder.name, folder)


def _from_folder(name: str, folder: Path) -> list[MaskFile]:
    found = [(mask, finding_of(mask)) for mask in sorted(folder.glob("*.nii*"))]
    # organs and regions are masks too, but no findings
    return [_mask_file(name, mask, [(finding,)]) for mask, finding in found if finding is not None]


def _from_sentences(path: Path) -> Listed:
    for name, file, sentences in _sentence_files(path, path / SENTENCES):
        labels = [label_report(sentence) for sentence in sentences]
        yield name, [_mask_file(name, file, [tuple(compress(FINDINGS, each)) for each in labels])]


def _sentence_files(folder: Path, listing: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Volumes that are listed and have a file, with that file and their sentences."""
    listed = read_any_json(listing)
    try:
        studies = [
            (str(study["name"]), [study["findings"][str(i)] for i in range(len(study["findings"]))])
            for split in listed.values()
            for study in split
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise _refusal(
            listing.parent,
            "its dataset.json does not list studies with name and findings by number",
        ) from error
    files = {nfc(p.name): p for p in sorted(folder.rglob("*.nii*")) if p.is_file()}
    for name, sentences in ((nfc(name), sentences) for name, sentences in studies):
        if name in files:
            yield stem(name), files[name], sentences


def _mask_file(name: str, path: Path, shown: Sequence[tuple[str, ...]]) -> MaskFile:
    return MaskFile(path, f"{path.name} of {Path(name).name}", tuple(shown))


def _places(file: MaskFile) -> Iterator[Place]:
    masks, affine = file.read()
    for mask, findings in zip(masks, file.shown, strict=True):
        boxes = boxes_of_mask(mask, affine) if findings else []
        yield from (Place(finding, box) for finding in findings for box in boxes)


def _refusal(path: Path, found: str) -> CtscribeError:
    return CtscribeError(
        "E_WHERE",
        f"{path} must be a manifest with masks, a phantom's truth.jsonl, a .csv with "
        f"{', '.join(_COLUMNS)}, or a folder of masks by volume, but {found}",
    )
