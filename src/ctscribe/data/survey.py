"""An archive's export → the headers of its studies, under pseudonyms; each is read once.

In: files, folders and zip archives, in any order and depth. Out: `Survey`. The worker that reads a
header replaces what identifies the patient, so that no other process sees it. Headers are held
compressed, about 200 bytes a file, because an export may have very many.
"""

import os
import pickle
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, not_readable
from ctscribe.data.engines import local
from ctscribe.data.pseudonyms import Pseudonyms
from ctscribe.scan.dicom_headers import SliceHeader, read_headers
from ctscribe.scan.dicom_sources import DicomFile, dicom_files, is_wanted, is_zip
from ctscribe.scan.file_list import absolute_path, is_file_list

_BATCH = 64
"""Files that one task reads."""
_NIFTI = (".nii", ".nii.gz")


@final
@dataclass(frozen=True)
class Unread:
    """A damaged file or a refused archive, under a pseudonym."""

    name: str
    path: Path
    entry: int | None
    code: str
    reason: str


@final
@dataclass
class Survey:
    """The contents of an export.

    Attributes:
        packed: Pseudonym of a study → its compressed headers; see `headers`.
        nifti: Pseudonym → NIfTI file, which states neither study nor patient.
        unread: Files that could not be read.
        num_files: Files that were examined.
        num_others: Files that are not scans: not DICOM, or DICOMDIR.
        lost: Files of a batch whose worker died, to be examined one by one.
    """

    packed: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    nifti: dict[str, Path] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    num_files: int = 0
    num_others: int = 0
    lost: list[Path] = field(default_factory=list)

    def headers(self, study: str) -> list[SliceHeader]:
        """The headers of a study, in the order of its files, which cannot be opened through them.

        Patient, study and accession number are pseudonyms.
        """
        found: list[SliceHeader] = []
        for packed in self.packed[study]:
            found += pickle.loads(zlib.decompress(packed))
        return sorted(found, key=lambda one: (one.file.path, one.file.entry or 0, one.frame))

    def add(self, other: "Survey") -> None:
        """Adds the contents of another part of the export."""
        for study, packed in other.packed.items():
            self.packed[study] += packed
        self.nifti |= other.nifti
        self.unread += other.unread
        self.num_files += other.num_files
        self.num_others += other.num_others
        self.lost += other.lost


def survey(
    sources: Sequence[Path],
    names: Pseudonyms,
    *,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Survey:
    """Reads the headers of everything in these files, folders and zip archives.

    Files that are not DICOM are skipped, unless their name says that they are. Damaged files are
    noted in the survey.

    Args:
        sources: Links to folders are not followed inside them.
        names: Makes the pseudonyms.
        processes: How many read at once.
        progress: Called with (files done, files in all).

    Raises:
        CtscribeError: ``E_MISSING`` for a source that is not there, ``E_READ`` for a folder that
            cannot be listed.
    """
    tasks = [*_batches(sorted({path for source in sources for path in _files(source)}))]
    total = sum(map(len, tasks))
    found = Survey()
    read, lost = partial(_survey_batch, names=names), partial(_lost, names=names)
    while tasks:
        for part in local.work(read, tasks, processes, lost=lost, need_bytes=lambda task: 0):
            found.add(part)
            progress(found.num_files, total)
        tasks = [[path] for path in found.lost]
        found.lost.clear()
    return found


def _files(source: Path) -> Iterator[Path]:
    if not source.exists():
        raise CtscribeError("E_MISSING", f"{source} must be a file or folder, but there is none")
    if not source.is_dir():
        yield source
        return

    def refuse(error: OSError) -> None:
        raise CtscribeError(
            "E_READ", f"every folder of {source} must be readable, but {error.strerror}"
        ) from error

    for folder, _, files in os.walk(source, onerror=refuse):
        yield from (Path(folder, file) for file in files if is_wanted(file))


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Batches of neighbouring files, whose similar headers compress well; archives alone."""
    archives = [path for path in paths if path.name.lower().endswith(".zip")]
    others = [path for path in paths if not path.name.lower().endswith(".zip")]
    yield from ([path] for path in archives)
    yield from (others[start : start + _BATCH] for start in range(0, len(others), _BATCH))


def _survey_batch(paths: Sequence[Path], names: Pseudonyms) -> Survey:
    """The headers of a batch of files, compressed by study."""
    found, studies = Survey(), defaultdict[str, list[SliceHeader]](list)
    for path in paths:
        found.num_files += 1
        if path.name.lower().endswith(_NIFTI):
            found.nifti[names.of("scan", str(absolute_path(path)))] = path
            continue
        try:
            if _is_special(path):
                found.num_others += 1
                continue
            with dicom_files(path, "the archive" if is_zip(path) else "the file") as files:
                for file in files:
                    _add_headers(file, names, found, studies)
        except (CtscribeError, OSError) as error:
            found.unread.append(_unread(path, None, error, names))
    for study, headers in studies.items():
        found.packed[study] = [zlib.compress(pickle.dumps(headers))]
    return found


def _is_special(path: Path) -> bool:
    """Whether a path is a pipe or device, or one of our own file lists."""
    return (path.exists() and not path.is_file()) or is_file_list(path)


def _add_headers(
    file: DicomFile,
    names: Pseudonyms,
    found: Survey,
    studies: dict[str, list[SliceHeader]],
) -> None:
    try:
        headers, _ = read_headers([file], "the file")
    except CtscribeError as error:
        if error.code == "E_NOT_DICOM":
            found.num_others += 1
        else:
            found.unread.append(_unread(file.path, file.entry, error, names))
        return
    shut = replace(file, open=_not_open)
    for one in headers:
        patient = names.of("patient", *one.patient)
        if one.study:
            study = names.of("scan", one.study)
        else:  # it belongs to the study of its patient's other files in the folder
            study = names.of("scan", "", *one.patient, str(absolute_path(file.path).parent))
        accession = names.of("accession", one.accession) if one.accession else ""
        renamed = replace(one, file=shut, patient=(patient,), study=study, accession=accession)
        studies[study].append(renamed)


def _not_open() -> BufferedIOBase:
    raise AssertionError("a file of a survey is read only once")


def _lost(paths: Sequence[Path], names: Pseudonyms) -> Survey:
    """The survey of a batch that ended its worker: several files are tried again one by one."""
    if len(paths) > 1:
        return Survey(lost=[*paths])
    fault = "the file must have a header that can be read, but it ends the process that reads it"
    error = CtscribeError("E_WORKER", fault)
    return Survey(unread=[_unread(paths[0], None, error, names)], num_files=1)


def _unread(
    path: Path, entry: int | None, error: CtscribeError | OSError, names: Pseudonyms
) -> Unread:
    if isinstance(error, OSError):
        error = not_readable("the file", error)
    name = names.of("file", str(absolute_path(path)), "" if entry is None else str(entry))
    return Unread(name, path, entry, error.code, error.sentence)
