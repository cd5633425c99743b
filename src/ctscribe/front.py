"""The public functions of the package, for notebooks.

The examples assume ``import ctscribe as ct`` and a working folder with a DICOM series in ``series``
and a training run in ``runs/heter``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import Row
from ctscribe.base.tables import CellTable
from ctscribe.base.types import SourceSplit
from ctscribe.text.findings import FINDINGS

if TYPE_CHECKING:
    from ctscribe.measure.references import References
    from ctscribe.scan.volume import CTVolume
    from ctscribe.text.report_tables import ReportTable
    from ctscribe.write.writer import ReportWriter

Rows = Iterable[Any]
"""Reports in any of these forms: texts, a mapping of names to texts (``{"1.nii.gz": "…"}``), dicts,
our own rows, or a data frame of pandas or polars."""

Record = Mapping[str, str]
"""One report as column → cell."""

_NAME = "VolumeName"
_COLUMNS = {
    "volume_name": _NAME,
    "scan_id": "scan",
    "patient_id": "patient",
    "age_years": "age",
}
"""Column of our own rows → its name in tables (`read_reference_tables`)."""
_NAMES = (_NAME, "AccessionNo", "volume", "scan", "study", "id", "name")
"""Columns that can name a report; the first one found is used."""
_MAY_LACK = frozenset({"patient", "scan"})
"""Columns that are ignored where every cell is empty."""
_OF_SPLITS = frozenset({"split", "source_split"})
"""Columns that are ignored: the caller has already selected the rows."""


def read_scan(
    source: str | Path,
    *,
    series: int | str | None = None,
    prefer: Literal["sform", "qform"] | None = None,
) -> "CTVolume":
    """Reads a chest CT: a NIfTI file, or the folder or zip of one DICOM series.

    >>> ct.read_scan("series")
    CTVolume(160 × 128 × 24 voxels of 2.00 × 2.00 × 5.00 mm, RAS, int16)

    Args:
        source: File or folder.
        series: Number or SeriesInstanceUID to read, where a DICOM folder holds several.
        prefer: Which affine of a NIfTI file to believe where two disagree; None refuses.

    Returns:
        Hounsfield units in RAS+ orientation with their affine.

    Raises:
        CtscribeError: What is wrong with it, in one sentence.
    """
    from ctscribe.scan.read import read_volume

    path = Path(source).expanduser()
    if not path.exists():
        raise CtscribeError("E_MISSING", "the scan must be a file or folder, but there is none")
    asked = None if series is None else str(series)
    return read_volume(path, study="the scan", series=asked, prefer=prefer)[0]


def load_writer(run: str | Path) -> "ReportWriter":
    """Opens a training run to write reports with its best weights.

    >>> writer = ct.load_writer("runs/heter")
    >>> writer
    ReportWriter(tiny, 1.8 M weights on cpu, not calibrated)
    >>> draft = writer.write(ct.read_scan("series"), name="case 7")
    >>> draft
    Draft('case 7', states no finding)
    >>> draft.findings[9]
    FindingRow('Lung nodule', not mentioned)
    >>> draft.save("draft.html")

    Raises:
        CtscribeError: ``E_MISSING``, ``E_RUN`` or ``E_WEIGHTS``.
    """
    from ctscribe.show.report import save_draft
    from ctscribe.write.writer import ReportWriter

    writer = ReportWriter(Path(run).expanduser(), save_draft)
    _ = writer.qwen  # raises here, not at the first scan, where the weights are incomplete
    return writer


def find_findings(text: object) -> dict[str, str]:
    """What a report says of each of CT-RATE's 18 findings.

    >>> told = ct.find_findings("A nodule of 6 mm is seen. No pleural effusion.")
    >>> told["Lung nodule"], told["Pleural effusion"], told["Emphysema"]
    ('present', 'absent', 'not mentioned')

    Args:
        text: The report. None and NaN count as an empty report.

    Returns:
        Finding to present, uncertain, absent or not mentioned, in CT-RATE's order.

    Raises:
        CtscribeError: ``E_TABLE`` for anything else.
    """
    from ctscribe.text.labeler import finding_statuses

    if not isinstance(text, str) and _cell(text):
        raise CtscribeError("E_TABLE", f"a report must be text, but is {_kind(text)}")
    told = finding_statuses(_cell(text))
    return {finding: told.get(finding, "not mentioned") for finding in FINDINGS}


@final
@dataclass(frozen=True, repr=False)
class Scores:
    """Scores of one system with intervals, and those of the blind baselines.

    ``values`` is what `scores.evaluate` returns and ``ctscribe evaluate`` writes.
    """

    values: Mapping[str, Any]

    def __repr__(self) -> str:
        from ctscribe.show.tables import value_of

        model, n = self.values["model"], self.values["n"]
        shown = (f"{name} {value_of(model[name])}" for name in ("bleu_4", "coverage", "precision"))
        return f"Scores({n['scans']} scans: {', '.join(shown)})"

    def table(self) -> "Markdown":
        """A table of language metrics and one of findings, with the blind baselines below."""
        from ctscribe.show.score_tables import score_tables
        from ctscribe.show.tables import written_tables

        return Markdown(written_tables(score_tables({"Model": self.values}), "markdown"))


@final
class Markdown(str):
    """Markdown that a notebook renders."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


def score(
    *,
    predictions: Rows,
    references: Rows,
    training: Rows | None = None,
    config: EvaluateConfig | None = None,
) -> Scores:
    """Scores written reports against true ones, with intervals and blind baselines.

    >>> true = {"a": "A lung nodule is seen.", "b": "The lungs are clear."}
    >>> scores = ct.score(predictions={"a": "A lung nodule.", "b": None}, references=true)
    >>> scores
    Scores(2 scans: bleu_4 0.000 [too few patients], ...)
    >>> scores.table().splitlines()[4]
    '| Model                                        | 0.090 [too few patients]  |...'

    Rows are read as ``ctscribe evaluate`` reads tables, see docs/scores.md: a row has its text
    in ``report`` or the like, or in ``findings`` and ``impression`` or ``Findings_EN`` and
    ``Impressions_EN``, and may have ``VolumeName``, ``patient``, ``scan``, ``labels`` or the 18
    findings, ``sex``, ``age`` and ``manufacturer``. Predictions and references are matched by name,
    or by order where one side has no names; a data frame's index is ignored. None and NaN are empty
    cells: a reference without findings is not scored, a missing prediction is an empty report.

    Args:
        predictions: The reports of any model.
        references: The true reports of the same scans.
        training: Reports that the blind baselines choose from; by default the other references.
        config: Text profile, further metrics and seed.

    Raises:
        CtscribeError: ``E_TABLE`` where these are not rows, and as `put_to_studies`,
            `reference_rows` and `evaluate`.
    """
    from ctscribe.measure.predictions import Noticed, named_reports, put_to_studies
    from ctscribe.measure.references import put_together
    from ctscribe.measure.scores import evaluate

    path = Path("the predictions")
    said, true = _named_alike(_records(predictions, path), _records(references, _REFERENCES))
    known = None
    if training is not None:
        known = _references(_named(_records(training, _TRAINING)), _TRAINING, "train")
    against = put_together(_references(true, _REFERENCES, "valid"), known)
    table = _table(said, path)
    noticed = Noticed()
    reports = named_reports(path, zip(table.names, table.texts, strict=True), noticed)
    answers = put_to_studies(reports, path, against.studies, against.left_out)
    values = evaluate(answers, against.studies, against.training, config or EvaluateConfig())
    values["n"] |= against.facts() | noticed.facts()
    return Scores(values)


_REFERENCES, _TRAINING = Path("the references"), Path("the training reports")
"""Stand-ins for file names in error messages."""


def _references(records: Sequence[Record], path: Path, split: SourceSplit) -> "References":
    from ctscribe.measure.references import TablePaths, reference_rows

    return reference_rows(_table(records, path), TablePaths(path), split)


def _records(rows: Rows, path: Path) -> list[Record]:
    """One record per report."""
    if isinstance(rows, str):
        raise CtscribeError("E_TABLE", f"{path} must be many, but are one text")
    if hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "columns"):  # pandas; a series of either is texts and has no columns
        rows = rows.to_dict("records")  # type: ignore[attr-defined]
    elif isinstance(rows, Mapping):
        rows = [{_NAME: name, "report": text} for name, text in rows.items()]
    records = [_record(row, path) for row in rows]
    if not records:
        raise CtscribeError("E_TABLE", f"{path} must be reports, but are none")
    return records


def _record(row: Any, path: Path) -> Record:  # noqa: ANN401 - that is what is asked here
    if isinstance(row, Row):
        row = row.model_dump()
    if isinstance(row, str) or (not isinstance(row, Mapping) and not _cell(row)):
        return {"report": _cell(row)}
    if not isinstance(row, Mapping):
        raise CtscribeError("E_TABLE", f"each of {path} must be a report, but one is {_kind(row)}")
    told = {_COLUMNS.get(column, str(column)): cell for column, cell in row.items()}
    labels = told.pop("labels", None)
    if isinstance(labels, Iterable):
        given = list(labels)
        if len(given) != len(FINDINGS):
            raise CtscribeError(
                "E_TABLE", f"{path} must have 18 labels each, but one has {len(given)}"
            )
        told |= dict(zip(FINDINGS, given, strict=True))
    cells = {column: _cell(cell) for column, cell in told.items() if column not in _OF_SPLITS}
    name = next((cells[column] for column in _NAMES if cells.get(column)), None)
    return cells if name is None else {**cells, _NAME: name}


def _cell(value: Any) -> str:  # noqa: ANN401 - whatever a notebook has
    """A cell as text; empty for None, NaN, NaT and NA."""
    if value is None or str(value == value) in ("False", "<NA>"):  # NaN, NaT; NA
        return ""
    return {"True": "1", "False": "0"}.get(str(value), str(value))


def _kind(value: object) -> str:
    return f"of the type {type(value).__name__}"


def _named_alike(
    said: Sequence[Record], true: Sequence[Record]
) -> tuple[Sequence[Record], Sequence[Record]]:
    """Gives both sides the same names, by order where one side has none."""
    if any(_NAME in row for row in said) and any(_NAME in row for row in true):
        return said, true
    if len(said) != len(true):
        raise CtscribeError(
            "E_PREDICTION",
            f"reports that name no scan must come in the order of the references, but there are "
            f"{len(said)} for {len(true)}",
        )
    names = [
        one.get(_NAME) or other.get(_NAME) or f"scan {number}"
        for number, (one, other) in enumerate(zip(said, true, strict=True), 1)
    ]
    return _with_names(names, said), _with_names(names, true)


def _named(training: Sequence[Record]) -> Sequence[Record]:
    """Training reports with names; numbered where none has one."""
    if any(_NAME in row for row in training):
        return training
    return _with_names(
        [f"training report {number}" for number, _ in enumerate(training, 1)], training
    )


def _with_names(names: Sequence[str], records: Sequence[Record]) -> list[Record]:
    return [{**row, _NAME: name} for name, row in zip(names, records, strict=True)]


def _table(records: Sequence[Record], path: Path) -> "ReportTable":
    """The records as if read from a CSV file."""
    from ctscribe.text.report_tables import report_table

    cells = [cell for row in records for cell in row.items()]
    told = [column for column, cell in cells if cell or column not in _MAY_LACK]
    header = list(dict.fromkeys((_NAME, *told)))
    rows = [{column: row.get(column, "") for column in header} for row in records]
    numbered = dict(enumerate(rows, 1))
    return report_table(CellTable(path, tuple(header), numbered), allow_empty=True)
