"""An archive's export → a manifest of its scans under pseudonyms, and a list of the rest.

In: files, folders and zip archives of any number of patients. Out, in one folder: ``scans.csv``, a
manifest (`data.manifest`) of one series per study; ``scans.skipped.csv``, the studies and files
that gave no scan, with the reason; ``scans.private/``, which stays with the scans: the pseudonyms'
key, and for each pseudonym the list of its files (`scan.file_list`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, read_text, write_text, writing
from ctscribe.base.locks import one_writer_of
from ctscribe.base.outside_text import plain_text
from ctscribe.base.rows import SkippedRow
from ctscribe.base.tables import Cells, CellTable, format_csv, read_csv
from ctscribe.data.manifest import is_data_set
from ctscribe.data.pseudonyms import Pseudonyms, open_key
from ctscribe.data.survey import Survey, survey
from ctscribe.scan.dicom import grid_of
from ctscribe.scan.dicom_headers import SliceHeader
from ctscribe.scan.dicom_series import choice_cells, choose_series
from ctscribe.scan.file_list import SUFFIX, Entries, absolute_path, is_inside, write_file_list
from ctscribe.scan.read import read_grid, set_grid
from ctscribe.text.report_tables import KEYS, ReportTable, report_table

_COLUMNS = (
    *("volume", "patient", "scan", "series"),
    *("kernel", "thickness_mm", "chosen", "why"),
)
_SKIPPED = ("name", "kind", "files", "code", "reason")
_ACCESSION = "AccessionNo"
_ACCESSION_NAMES = frozenset({"accession", "accessionno", "accessionnumber"})


@final
@dataclass(frozen=True, slots=True)
class Worklist:
    """What was made of an export; see the module."""

    scans_path: Path
    key_path: Path
    is_new_key: bool
    num_scans: int
    num_patients: int
    num_files: int
    num_others: int
    """Files that are not scans."""
    skipped_by_code: dict[str, int]
    num_without_report: int | None
    """None where no reports were given."""
    leads_outside: bool
    """Whether files lie outside the list's folder, so that reading it needs `allow_outside`."""

    @property
    def skipped_path(self) -> Path:
        """CSV of studies and files that gave no scan, with the reason."""
        return self.scans_path.with_suffix(".skipped.csv")

    @property
    def private_dir(self) -> Path:
        """Folder that stays with the scans: the key and the file lists."""
        return _private(self.scans_path)


def _private(scans_path: Path) -> Path:
    return scans_path.with_suffix(".private")


def write_worklist(
    sources: Sequence[Path],
    out: Path,
    *,
    key: Path | None = None,
    reports: Path | None = None,
    replaces: bool = False,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Worklist:
    """Lists the scans of an export, without any name, identifier or number of a patient.

    Args:
        sources: Files, folders and zip archives, as `survey` takes them.
        out: The manifest to write, ``.csv``; the other outputs are named after it.
        key: Key of the pseudonyms; None takes the one in the private folder, made if missing.
        reports: CSV of texts by accession number; see `_read_reports`. A number that occurs in no
            study, or in several, is ignored.
        replaces: Whether to replace an existing manifest that differs, instead of refusing to.
        processes: How many read at once.
        progress: Called with (files done, files in all).

    Raises:
        CtscribeError: ``E_MISSING``, ``E_EXISTS``, ``E_KEY``, ``E_OPTION``, or what is wrong with
            the table of reports.
    """
    if out.suffix.lower() != ".csv":
        raise CtscribeError(
            "E_OPTION", f"a list of scans is a .csv file, but {out.name} is asked for"
        )
    table = None if reports is None else _read_reports(reports)
    with one_writer_of(out):
        key_path = key or _private(out) / "key"
        with writing(_private(out)):
            _private(out).mkdir(mode=0o700, parents=True, exist_ok=True)
        names, is_new = open_key(key_path)
        found = survey(sources, names, processes=processes, progress=progress)
        listed = _Listing(_private(out))
        listed.add(found)
        without = None if table is None else listed.add_reports(table, names)
        written = listed.summary(out, key_path, is_new, found, without)
        text = _as_csv((*_COLUMNS, *(_text_columns(table) if table else ())), listed.rows)
        if not replaces:
            _require_new(out, text)
        write_text(out, text)
        write_text(written.skipped_path, _as_csv(_SKIPPED, listed.skipped))
        return written


def _read_reports(path: Path) -> ReportTable:
    """A CSV of reports by accession number, its other columns as `read_report_table` takes them.

    Raises:
        CtscribeError: ``E_COLUMN`` without such a column, or what is wrong with the table.
    """
    table = read_csv(path)
    key = next((name for name in table.columns if _plain_name(name) in _ACCESSION_NAMES), None)
    if key is None:
        raise CtscribeError(
            "E_COLUMN", f"{path} must have a column {_ACCESSION} to join reports by, but has none"
        )
    kept = [name for name in table.columns if name == key or name not in KEYS]
    rows = {
        number: {_ACCESSION if name == key else name: cells[name] for name in kept}
        for number, cells in table.rows.items()
    }
    columns = tuple(_ACCESSION if name == key else name for name in kept)
    return report_table(CellTable(path, columns, rows), allow_empty=True)


def _plain_name(column: str) -> str:
    return "".join(filter(str.isalnum, column.lower()))


@final
class _Listing:
    """Collects the rows of both tables, and writes the file lists."""

    def __init__(self, private: Path) -> None:
        self._private = private
        self._folder = private.parent.resolve()
        self._by_accession: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self.rows: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []
        self.leads_outside = False

    def add(self, found: Survey) -> None:
        """Adds every study and NIfTI file, and what could not be read."""
        for study in sorted(found.packed):
            self._add_study(study, found.headers(study))
        for name, path in sorted(found.nifti.items()):
            self._add_nifti(name, path)
        for one in sorted(found.unread, key=lambda one: one.name):
            entries = None if one.entry is None else [one.entry]
            self._skip(one.name, "file", {one.path: entries}, one.code, one.reason)

    def _add_study(self, study: str, headers: list[SliceHeader]) -> None:
        try:
            chosen, notes = choose_series(headers, study)
            set_grid(*grid_of(chosen, study), study)
        except CtscribeError as error:
            self._skip(study, "study", _files_of(headers), error.code, error.sentence)
            return
        self._write_files(study, _files_of(one for one in headers if one.modality == "CT"))
        row = {"patient": chosen[0].patient[0], **choice_cells(chosen, notes)}
        self._add_row(study, row)
        accessions = {one.accession for one in headers if one.accession}
        if len(accessions) == 1:
            self._by_accession[accessions.pop()].append(self.rows[-1])

    def _add_nifti(self, name: str, path: Path) -> None:
        """Adds a NIfTI file, which states no patient and so counts as a patient of its own."""
        try:
            read_grid(path, study=name)
        except CtscribeError as error:
            self._skip(name, "file", {path: None}, error.code, error.sentence)
            return
        self._write_files(name, {path: None})
        choice = {"chosen": "a NIfTI file", "why": "it states no patient and counts as one"}
        self._add_row(name, {"patient": name.replace("scan", "patient", 1), **choice})

    def _add_row(self, name: str, row: Cells) -> None:
        self.rows.append({"volume": f"{self._private.name}/{name}{SUFFIX}", "scan": name, **row})

    def _skip(
        self, name: str, kind: str, files: Mapping[Path, Entries], code: str, reason: str
    ) -> None:
        self._write_files(name, files)
        row = {"name": name, "kind": kind, "files": str(len(files)), "code": code, "reason": reason}
        self.skipped.append(row)

    def _write_files(self, name: str, files: Mapping[Path, Entries]) -> None:
        there = {absolute_path(file): entries for file, entries in files.items()}
        write_file_list(self._private / f"{name}{SUFFIX}", there)
        self.leads_outside |= not all(is_inside(file, self._folder) for file in there)

    def add_reports(self, table: ReportTable, names: Pseudonyms) -> int:
        """Adds to each scan the text of its accession number; returns how many have none.

        A text whose number several scans share is ignored, since it may belong to any of them.
        """
        columns = _text_columns(table)
        for accession, texts in zip(table.names, table.texts, strict=True):
            scans = self._by_accession.get(names.of("accession", accession), [])
            if len(scans) == 1:
                scans[0].update(zip(columns, map(_plain_lines, texts), strict=True))
        return sum(not any(row.get(column) for column in columns) for row in self.rows)

    def summary(
        self, out: Path, key_path: Path, is_new_key: bool, found: Survey, without: int | None
    ) -> Worklist:
        """The summary of an export in which ``without`` scans have no report."""
        return Worklist(
            scans_path=out,
            key_path=key_path,
            is_new_key=is_new_key,
            num_scans=len(self.rows),
            num_patients=len({row["patient"] for row in self.rows}),
            num_files=found.num_files,
            num_others=found.num_others,
            skipped_by_code=dict(sorted(Counter(row["code"] for row in self.skipped).items())),
            num_without_report=without,
            leads_outside=self.leads_outside,
        )


def _text_columns(table: ReportTable) -> tuple[str, ...]:
    """The manifest's columns for the texts of a table."""
    return ("report",) if len(table.columns) == 1 else ("findings", "impression")


def _plain_lines(text: str) -> str:
    """A text without control characters; lines are kept, because headings begin them."""
    return "\n".join(map(plain_text, text.splitlines()))


def _files_of(headers: Iterable[SliceHeader]) -> dict[Path, Entries]:
    found: dict[Path, set[int] | None] = {}
    for one in headers:
        entries = found.setdefault(one.file.path, None if one.file.entry is None else set())
        if entries is not None and one.file.entry is not None:
            entries.add(one.file.entry)
    return dict(found)


def _as_csv(columns: Sequence[str], rows: Iterable[Cells]) -> str:
    return format_csv([columns, *([row.get(column, "") for column in columns] for row in rows)])


def _require_new(path: Path, text: str) -> None:
    """Refuses to write over a list to which somebody may have added columns."""
    if path.exists() and read_text(path) != text:
        raise CtscribeError(
            "E_EXISTS", f"{path} must be new or hold the same list, but holds another one"
        )


@contextmanager
def as_data_set(
    source: Path, *, processes: int = 1
) -> Iterator[tuple[Path | None, list[SkippedRow]]]:
    """Passes a data set through; lists an export in a temporary manifest during the block.

    Yields:
        The data set or manifest, None if the export has no scan; and what the manifest lacks.

    Raises:
        CtscribeError: As `write_worklist`.
    """
    if not source.exists() or is_data_set(source):
        yield source, []
        return
    with TemporaryDirectory(prefix="ctscribe-") as folder:
        found = write_worklist([source], Path(folder) / "scans.csv", processes=processes)
        if found.num_scans:
            yield found.scans_path, read_skipped(found)
        else:  # a folder without any scan is later refused as a data set
            yield None if found.skipped_by_code else source, read_skipped(found)


def read_skipped(worklist: Worklist) -> list[SkippedRow]:
    """The studies and files that gave no scan, as rows of ``skipped.jsonl``."""
    rows = read_csv(worklist.skipped_path).rows.values()
    return [
        SkippedRow(volume_name=row["name"], code=row["code"], reason=row["reason"]) for row in rows
    ]
