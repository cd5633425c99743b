"""The JSONL files between stages: one row type per file, and how rows are read and written.

Row types validate their fields, and each line carries a checksum. So a line that no stage can have
written is refused by its number when it is read.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar, final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    CRC32,
    UNPARSABLE,
    atomic_write,
    brief,
    crc32_of,
    open_text,
    sha256_of_json,
    writing,
)
from ctscribe.base.outside_text import is_file_name, nfc, plain_text, without_placeholder
from ctscribe.base.types import BoxMm, Labels, Sex, SourceSplit, Split

MAX_AGE_YEARS = 130
_NUM_FINDINGS = 18
_MIN_CELL_MM3 = 1e-3
"""Volume of a cell of an encoder's grid; below it the axes are parallel or zero."""

Name = Annotated[str, Field(min_length=1), AfterValidator(nfc)]
"""Name of a volume, scan or patient, in Unicode's composed form."""
ReportText = Annotated[str, AfterValidator(without_placeholder)]
"""A section of a report; placeholders such as "N/A" become empty."""
WholeText = Annotated[str | None, Field(exclude=True)]
"""The report as its file has it, headings included, if it came as one text; for scorers that
compare whole reports. It is not written to the row's file."""


def _require(holds: bool, must: str) -> None:
    """Makes the validator that calls it refuse the row unless a condition holds."""
    if not holds:
        raise ValueError(f"must {must}")


def _check_labels(labels: Labels) -> Labels:
    _require(len(labels) == _NUM_FINDINGS and set(labels) <= {0, 1}, "be 18 labels, each 0 or 1")
    return labels


class Row(BaseModel):
    """One line of a JSONL file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    KEY: ClassVar[tuple[str, ...]] = ()
    """Fields that together identify a row of its file; if empty, rows may repeat."""


class ReportedRow(Row):
    """A report with its labels, identified by its volume, which need not be on disk."""

    KEY = ("volume_name",)

    volume_name: Name
    """CT-RATE's key, e.g. ``train_1_a_1.nii.gz``; for own data the manifest's name."""
    patient_id: Name
    scan_id: Name
    """The examination, whose reconstructions share this id, the report and the labels."""
    source_split: SourceSplit
    findings: Annotated[ReportText, Field(min_length=1)]
    impression: ReportText
    labels: Annotated[Labels, AfterValidator(_check_labels)] | None
    """The 18 findings in order, or None where the source has none."""
    whole: WholeText = None
    manufacturer: Annotated[str, AfterValidator(plain_text)] | None = None
    sex: Sex | None = None
    age_years: Annotated[float, Field(ge=0, le=MAX_AGE_YEARS)] | None = None


class StudyRow(ReportedRow):
    """One prepared volume with its report; see `prepared.Prepared`."""

    findings: ReportText
    """Empty where the scan has no report; it can then only be drafted."""
    split: Split
    """Decided once, by `prepare`: as the data set states it, else by `prepared.split_of`."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Voxel size of the prepared volume along (x, y, z)."""
    shape_xyz: tuple[PositiveInt, PositiveInt, PositiveInt]
    slice_indices: tuple[NonNegativeInt, ...]
    """z index of the slice that each frame shows; most cranial first."""
    position_mm: tuple[float, ...]
    """Superior coordinate of each of these slices, RAS+ mm."""
    frame_to_ras: tuple[tuple[float, float, float, float], ...]
    """4 × 4: (column px, row px, z index, 1) of a frame → RAS+ mm."""
    reach_z: tuple[tuple[float, float], ...] = ()
    """Lower and upper z index of the slab that each frame shows, at voxel edges and so fractional.
    Empty without slabs; a frame then reaches half a z index to either side of its slice."""
    warnings: tuple[str, ...] = ()
    """Codes of what was noticed while preparing."""

    @property
    def has_report(self) -> bool:
        """Whether the scan has a report; without one it can only be drafted."""
        return bool(self.findings)

    @model_validator(mode="after")
    def _must_hold_together(self) -> "StudyRow":
        indices, depth, matrix = self.slice_indices, self.shape_xyz[2], self.frame_to_ras
        _require(is_file_name(self.volume_name), "have a plain file name as volume_name")
        is_tested = self.split == "test"
        _require(is_tested == (self.source_split == "valid"), "be tested if, and only if, valid")
        _require(0 <= max(indices, default=-1) < depth, f"show slices of the {depth} there are")
        _require(len(set(indices)) == len(indices), "show each slice once")
        _require(len(self.position_mm) == len(indices), "have one position for each slice")
        _require(len(self.reach_z) in (0, len(indices)), "have one reach for each slice, or none")
        _require(all(low < high for low, high in self.reach_z), "reach from below to above")
        _require(len(matrix) == 4 and matrix[3] == (0, 0, 0, 1), "have a 4 × 4 frame_to_ras")
        return self


FEATURE_TABLES = "tables.jsonl"


class FeatureTableRow(Row):
    """``tables.jsonl``: the file of one volume's features by another encoder, and their geometry.

    Users write these files, after they have run the encoder.
    """

    KEY = ("volume_name",)

    volume_name: Name
    """The data set's name for the volume; for noise, any other name."""
    file: Name
    """safetensors or npy file beside the table: [cells, width], with planes slowest and columns
    fastest, or [planes, rows, columns, width]."""
    grid: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Number of planes, rows and columns."""
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    """4 × 4: (plane, row, column, 1) of a cell's centre → RAS+ mm."""
    plane_mm: tuple[float, ...] | None = None
    """Superior coordinate of each plane, RAS+ mm, in place of an unknown affine."""
    noise: bool = False
    """Whether the volume is Gaussian noise, which has no geometry."""

    @model_validator(mode="after")
    def _must_hold_together(self) -> "FeatureTableRow":
        _require(is_file_name(self.file), "have a plain file name as file")
        num_places = (self.affine is not None) + (self.plane_mm is not None)
        if self.noise:
            _require(not num_places, "have neither affine nor plane_mm where it is noise")
            return self
        _require(num_places == 1, "have an affine, or plane_mm where no more is known")
        if self.affine is not None:
            _require(_is_affine(self.affine), "have a 4 × 4 affine with independent axes")
        if self.plane_mm is not None:
            steps = {low < high for low, high in pairwise(self.plane_mm)}
            _require(len(self.plane_mm) == self.grid[0], "have one plane_mm for each plane")
            _require(len(steps) < 2, "have plane_mm that rise or fall from plane to plane")
            _require(len(set(self.plane_mm)) == len(self.plane_mm), "have no two planes at one mm")
        return self


def _is_affine(rows: Sequence[tuple[float, float, float, float]]) -> bool:
    if len(rows) != 4 or rows[3] != (0, 0, 0, 1):
        return False
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = rows[:3]
    volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return abs(volume) > _MIN_CELL_MM3


class SkippedRow(Row):
    """``skipped.jsonl``: a volume that could not be prepared, and why."""

    volume_name: str
    code: str
    reason: str

    @classmethod
    def of(cls, volume_name: str, error: CtscribeError) -> "SkippedRow":
        """The row of a volume that ended in ``error``."""
        return cls(volume_name=volume_name, code=error.code, reason=error.sentence)


class Lesion(Row):
    """One finding that the phantom drew, and where."""

    finding: str
    """One of `findings.FINDINGS`."""
    box_mm: BoxMm
    """In the RAS+ frame of the volume's affine."""
    size_mm: PositiveFloat
    """Largest axial diameter, or thickness for layers."""
    side: Literal["right", "left", "both", "midline"]
    lobe: str | None
    """e.g. ``upper lobe``; None outside the lungs."""
    slices: tuple[NonNegativeInt, NonNegativeInt]
    """First and last z index of the stored volume that it touches."""
    sentence: str
    """The sentence of the report that states it."""

    @model_validator(mode="after")
    def _must_hold_together(self) -> "Lesion":
        lower, upper = self.box_mm
        _require(all(map(float.__le__, lower, upper)), "have a box_mm from its lower corner")
        _require(self.slices[0] <= self.slices[1], "have slices from the first to the last")
        return self


class TruthRow(Row):
    """``truth.jsonl``: what the phantom drew into one volume."""

    KEY = ("volume_name",)

    volume_name: Name
    scan_id: Name
    lesions: tuple[Lesion, ...]


class PairRow(Row):
    """``pairs.jsonl``: a positive, then its negative."""

    KEY = ("study", "role")

    study: Name
    """``volume_name`` whose report, labels and prompt are used."""
    role: Literal["positive", "negative"]
    volume: Name | None
    """``volume_name`` whose frames are shown; None for noise."""
    disputed: tuple[str, ...] | None = None
    """Findings in which the labels of study and shown patient differ; None, meaning all, for
    noise; None on positives."""
    noise_seed: NonNegativeInt | None = None
    """Seed of the noise volume (gauss)."""
    label_distance: Annotated[int, Field(ge=0, le=_NUM_FINDINGS)] | None = None
    """Number of labels in which the shown patient differs (heter, hard)."""
    relaxed_by: NonNegativeInt = 0
    """By how much the required distance had to be lowered (heter)."""
    alternatives: tuple[Name, ...] | None = None
    """Other suitable volumes, nearest first, among which later epochs choose (hard)."""

    @model_validator(mode="after")
    def _must_hold_together(self) -> "PairRow":
        is_own, is_noise = self.volume == self.study, self.volume is None
        _require(is_own == (self.role == "positive"), "show the study's own volume where positive")
        _require(is_noise == (self.noise_seed is not None), "have a noise_seed instead of a volume")
        return self


class GapRow(Row):
    """``gaps/epoch-<n>.jsonl``: a run's gap between a study's own volume and one other."""

    study: Name
    volume: Name
    """The other volume, shown instead of the study's own."""
    gap: float
    """CE(negative) − CE(positive) when the pair was trained on, nats per answer token."""


class PredictionRow(Row):
    """``predictions.jsonl``: one written report per scan."""

    KEY = ("volume_name",)

    scan_id: Name
    patient_id: Name
    volume_name: Name
    findings: ReportText
    impression: ReportText
    num_tokens: NonNegativeInt | None = None
    """Length of the report; None where another tool wrote it."""
    finished: bool | None = None
    """False when the report ran into the length limit; None where that is unknown."""
    cue: tuple[str, ...] | None = None
    """Findings that the prompt named; None where the prompt had no cue."""
    whole: WholeText = None


class DraftRow(Row):
    """``drafts.jsonl``: the draft of one scan of many, or why there is none."""

    KEY = ("volume_name",)

    volume_name: Name
    """Also the name of the folder with the draft's files."""
    patient_id: Name
    scan_id: Name
    status: Literal["written", "not assessable", "failed"]
    code: str | None = None
    """Code of the error, if any."""
    reason: str | None = None
    """Why there is no text, as a sentence."""
    findings: ReportText = ""
    impression: ReportText = ""
    present: tuple[str, ...] = ()
    """The findings, of the 18, that the text states."""
    finished: bool = True
    """False when the report ran into the length limit."""
    documents: tuple[Name, ...] = ()
    """Names of the files for a hospital's systems (DICOM SR, FHIR)."""
    source_sha256: str | None = None
    """Hash of the scan and of all else that it was made from, the run aside."""


@final
@dataclass(frozen=True)
class Unfinished:
    """How many reports ran into the length limit, among those for which this is known."""

    count: int
    known: int

    @property
    def share(self) -> float | None:
        """Share of cut reports; None where it is known for no report."""
        return self.count / self.known if self.known else None

    def __str__(self) -> str:
        share = f" ({100 * self.count / self.known:.1f} %)" if self.count else ""
        return f"{self.count} of {self.known} reports{share} cut short by the length limit"


def unfinished(rows: Iterable[PredictionRow]) -> Unfinished:
    """Counts reports that the length limit cut short."""
    known = [row.finished for row in rows if row.finished is not None]
    return Unfinished(known.count(False), len(known))


AnyRow = TypeVar("AnyRow", bound=Row)
AnyReported = TypeVar("AnyReported", bound=ReportedRow)


def one_per_scan(studies: Sequence[AnyReported]) -> list[AnyReported]:
    """The first reconstruction of each scan: reports are scored once per scan."""
    return list({study.scan_id: study for study in reversed(studies)}.values())[::-1]


def sha256_of_rows(rows: Iterable[Row]) -> str:
    """Hash of the rows' content, in their order."""
    return sha256_of_json([row.model_dump(mode="json") for row in rows])


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows as JSONL, atomically, as they come; returns their number."""
    number = 0
    with atomic_write(path) as file:
        for number, row in enumerate(rows, 1):  # noqa: B007 - the last number is returned
            file.write(line_of(row).encode())
    return number


def append_row(path: Path, row: Row) -> None:
    """Appends one row; if interrupted, `read_rows` with ``partial`` drops the incomplete line.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(line_of(row))


def line_of(row: Row) -> str:
    """A row as a line of JSONL whose last field is the checksum that `read_rows` checks."""
    content = row.model_dump_json()
    start = content.removesuffix("}")
    return f'{start}{"," if start != "{" else ""}"{CRC32}":"{crc32_of(content)}"}}\n'


def read_rows(path: Path, row_type: type[AnyRow], *, partial: bool = False) -> list[AnyRow]:
    """Reads a JSONL file; ``partial`` drops a last line that an interruption left incomplete.

    White space may differ from how a row was written. Rows without a checksum, of other tools or
    earlier versions, are accepted.

    Raises:
        CtscribeError: As `read_lines`, and ``E_ROW`` with the number of a line that is no such
            row, or has the key of an earlier one.
    """
    return [*each_row(path, row_type, partial=partial)]


def each_row(path: Path, row_type: type[AnyRow], *, partial: bool = False) -> Iterator[AnyRow]:
    """As `read_rows`, yielding rows as they are read, for files too large for memory."""
    first: dict[tuple[object, ...], int] = {}
    for number, line in read_lines(path, partial=partial):
        found = _CHECKSUM.match(line, line.rfind(","))
        content = f"{line[: found.start()]}}}" if found else line
        try:
            row = row_type.model_validate_json(content)
        except (ValidationError, *UNPARSABLE) as error:
            raise _bad_row(path, number, row_type, _fault(error)) from error
        if found and not _is_intact(found[1], content, row):
            fault = f"it was changed or damaged since it was written: it does not have its {CRC32}"
            fault += ", which a line that is changed on purpose goes without"
            raise _bad_row(path, number, row_type, fault)
        key = tuple(getattr(row, field) for field in row_type.KEY)
        if key and (before := first.setdefault(key, number)) != number:
            fault = f"it has the {' and '.join(row_type.KEY)} of line {before}"
            raise _bad_row(path, number, row_type, fault)
        yield row


_CHECKSUM = re.compile(rf',\s*"{CRC32}":\s*"([0-9a-f]{{8}})"\s*\}}\s*$')


def _is_intact(checksum: str, content: str, row: Row) -> bool:
    """Whether a line has its checksum, as it stands or with white space as `line_of` writes it."""
    is_same_line = checksum == crc32_of(content)
    return is_same_line or checksum == crc32_of(row.model_dump_json(exclude_unset=True))


def _fault(error: Exception) -> str:
    """The first fault that a parser or validator found, as part of a sentence."""
    if not isinstance(error, ValidationError):
        return brief(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:80]
    fault = first["msg"].removeprefix("Value error, ")
    return f"{f'{where}: ' if where else 'it '}{fault[:1].lower()}{fault[1:]}"


def _bad_row(path: Path, number: int, row_type: type[Row], fault: str) -> CtscribeError:
    return CtscribeError(
        "E_ROW", f"{path} line {number} must be a {row_type.__name__}, but {fault}"
    )


def read_lines(path: Path, *, partial: bool = False) -> Iterator[tuple[int, str]]:
    """The lines of a JSONL file that are not blank, numbered from 1.

    Only a line feed ends a line: JSON may hold the other separators of Unicode inside a text.
    ``partial`` drops a last line without one.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ`` or ``E_ENCODING``.
    """
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and (line.endswith("\n") or not partial):
                yield number, line
