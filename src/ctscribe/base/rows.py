"""What travels between stages: one row type per JSONL file, and how rows are read and written."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from isal.isal_zlib import crc32
from pydantic import BaseModel, ConfigDict, ValidationError

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    CRC32,
    UNPARSABLE,
    brief,
    read_text,
    sha256_of_json,
    write_text,
    writing,
)
from ctscribe.base.types import BoxMm, Labels, SourceSplit, SpacingMm, Split


class Row(BaseModel):
    """One line of a JSONL file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReportedRow(Row):
    """A report with its labels, named by its volume, which need not be on disk."""

    volume_name: str
    """CT-RATE's key, e.g. ``train_1_a_1.nii.gz``; for own data the manifest's name."""
    patient_id: str
    scan_id: str
    """Names the examination; reconstructions of one scan share it, its report and its labels."""
    source_split: SourceSplit
    findings: str
    impression: str
    labels: Labels | None
    """The 18 findings in order, or None where the source has none."""
    manufacturer: str | None = None
    sex: str | None = None
    age_years: float | None = None


class StudyRow(ReportedRow):
    """One prepared volume with its report; see `prepared.Prepared`."""

    split: Split
    """Decided by `prepare`, once; see `prepared.split_of`."""
    spacing_mm: SpacingMm
    """Of the prepared volume, (x, y, z)."""
    shape_xyz: tuple[int, int, int]
    slice_indices: tuple[int, ...]
    """Slices the frames show, in frame order (most cranial first), as z index of the volume."""
    position_mm: tuple[float, ...]
    """Superior coordinate of each of these slices in RAS+ mm."""
    frame_to_ras: tuple[tuple[float, float, float, float], ...]
    """4 × 4: (column px, row px, z index, 1) of a frame → RAS+ mm."""
    reach_z: tuple[tuple[float, float], ...] = ()
    """From which z index to which each frame shows the volume, edges of voxels, fractions; empty
    without slabs, when a frame reaches half a z index to either side of its slice."""
    warnings: tuple[str, ...] = ()
    """Codes of what was noticed and decided while preparing."""


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
    size_mm: float
    """Largest axial diameter, or thickness for layers."""
    side: Literal["right", "left", "both", "midline"]
    lobe: str | None
    """e.g. ``upper lobe``; None outside the lungs."""
    slices: tuple[int, int]
    """First and last z index of the stored volume that it touches."""
    sentence: str
    """The sentence of the report that states it."""


class TruthRow(Row):
    """``truth.jsonl``: what the phantom drew into one volume."""

    volume_name: str
    scan_id: str
    lesions: tuple[Lesion, ...]


class PairRow(Row):
    """``pairs.jsonl``: a positive, then its negative."""

    study: str
    """``volume_name`` whose report, labels and prompt are used."""
    role: Literal["positive", "negative"]
    volume: str | None
    """``volume_name`` whose frames are shown; None for noise."""
    disputed: tuple[str, ...] | None = None
    """Findings in which the labels of study and shown patient differ; None, meaning all, for
    noise; None on positives."""
    noise_seed: int | None = None
    """Seed of the noise volume (gauss)."""
    label_distance: int | None = None
    """Labels in which the shown patient differs (heter, hard)."""
    relaxed_by: int = 0
    """Steps by which the required distance had to be lowered (heter)."""
    alternatives: tuple[str, ...] | None = None
    """Other volumes that would do, nearest first, from which epochs draw anew (hard)."""


class GapRow(Row):
    """``gaps/epoch-<n>.jsonl``: how well a run told one study's report from one other volume."""

    study: str
    volume: str
    """Shown instead of the study's own."""
    gap: float
    """CE(negative) − CE(positive) when the pair was trained on, nats per answer token."""


class PredictionRow(Row):
    """``predictions.jsonl``: one written report per scan."""

    scan_id: str
    patient_id: str
    volume_name: str
    findings: str
    impression: str
    num_tokens: int | None = None
    """None where another tool wrote the report."""
    finished: bool | None = None
    """False when the report ran into the length limit; None where that is not known."""
    cue: tuple[str, ...] | None = None
    """Findings that the prompt told; None where it told nothing."""


AnyRow = TypeVar("AnyRow", bound=Row)
AnyReported = TypeVar("AnyReported", bound=ReportedRow)


def one_per_scan(studies: Sequence[AnyReported]) -> list[AnyReported]:
    """The first reconstruction of each scan: reports are scored once per scan."""
    return list({study.scan_id: study for study in reversed(studies)}.values())[::-1]


def sha256_of_rows(rows: Iterable[Row]) -> str:
    """Hash of what rows say, in their order."""
    return sha256_of_json([row.model_dump(mode="json") for row in rows])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSONL, atomically."""
    write_text(path, "".join(map(line_of, rows)))


def append_row(path: Path, row: Row) -> None:
    """Appends one row; `read_rows` can drop a last line that an interruption cut.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(line_of(row))


def line_of(row: Row) -> str:
    """A row as a line of JSONL; its last field is a checksum, which `read_rows` checks."""
    content = row.model_dump_json()
    start = content.removesuffix("}")
    return f'{start}{"," if start != "{" else ""}"{CRC32}":"{_crc32_of(content)}"}}\n'


def read_rows(path: Path, row_type: type[AnyRow], *, partial: bool = False) -> list[AnyRow]:
    """Reads a JSONL file; ``partial`` drops a last line that was cut by an interruption.

    Rows may be spaced otherwise than they were written. Those without a checksum are of another
    tool or an earlier version, and are taken as they are.

    Raises:
        CtscribeError: As `read_lines`, and ``E_ROW`` with the line number.
    """
    rows = []
    for number, line in read_lines(path, partial=partial):
        found = _CHECKSUM.match(line, line.rfind(","))
        content = f"{line[: found.start()]}}}" if found else line
        try:
            row = row_type.model_validate_json(content)
        except (ValidationError, *UNPARSABLE) as error:
            raise CtscribeError(
                "E_ROW", f"{path} line {number} must be a {row_type.__name__}, but {_why(error)}"
            ) from error
        if found and not _is_intact(found[1], content, row):
            raise CtscribeError(
                "E_ROW",
                f"{path} line {number} must be as it was written, but it was changed or damaged "
                f"since: it does not have its own {CRC32}, which a line that is changed on purpose "
                "goes without",
            )
        rows.append(row)
    return rows


_CHECKSUM = re.compile(rf',\s*"{CRC32}":\s*"([0-9a-f]{{8}})"\s*\}}\s*$')


def _is_intact(written: str, content: str, row: Row) -> bool:
    as_it_stands = written == _crc32_of(content)
    return as_it_stands or written == _crc32_of(row.model_dump_json(exclude_unset=True))


def _crc32_of(content: str) -> str:
    return f"{crc32(content.encode()):08x}"


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return brief(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:80] or 'it'}: {first['msg'].lower()}"


def read_lines(path: Path, *, partial: bool = False) -> list[tuple[int, str]]:
    """The lines of a JSONL file that are not blank, numbered from 1.

    Only a line feed ends a line: JSON may hold the other separators of Unicode inside a text.
    ``partial`` drops a last line without one.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ`` or ``E_ENCODING``.
    """
    lines = read_text(path).split("\n")
    if partial:
        lines.pop()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
