"""The front door: five functions for a notebook, above all wings.

Plain strings, dicts and data frames are accepted where a notebook has them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, ReportedRow
from ctscribe.text.sections import split_report

if TYPE_CHECKING:
    from ctscribe.scan.volume import CTVolume
    from ctscribe.write.writer import ReportWriter

Rows = Iterable[Any]
"""Report texts in one order; or dicts, rows of ours or a data frame with the keys `_KEYS`."""
_KEYS = ("scan_id", "study", "volume_name", "VolumeName", "volume", "id")
"""What may name a scan, the first that is there; rows without any belong together by order."""


def read_scan(source: str | Path) -> "CTVolume":
    """Reads a chest CT: a NIfTI file, or the folder or zip of one DICOM series.

    Returns:
        Hounsfield units in RAS+ orientation with their affine.

    Raises:
        CtscribeError: What is wrong with it, in one sentence.
    """
    from ctscribe.scan.read import read_volume

    path = Path(source)
    if not path.exists():
        raise CtscribeError("E_MISSING", "the scan must be a file or folder, but there is none")
    return read_volume(path, study="the scan")[0]


def load_writer(run: str | Path) -> "ReportWriter":
    """Opens a training run to write reports with its best weights.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_RUN`` or ``E_WEIGHTS``.
    """
    from ctscribe.show.report import save_draft
    from ctscribe.write.writer import ReportWriter

    writer = ReportWriter(Path(run), save_draft)
    _ = writer.qwen  # a run without whole weights is told now, not at the first scan
    return writer


def find_findings(text: str) -> dict[str, str]:
    """What a report says of each of CT-RATE's 18 findings.

    Returns:
        Finding to present, uncertain, absent or not mentioned, in CT-RATE's order.
    """
    from ctscribe.text.findings import FINDINGS
    from ctscribe.text.labeler import finding_statuses

    told = finding_statuses(text)
    return {finding: told.get(finding, "not mentioned") for finding in FINDINGS}


@final
@dataclass(frozen=True, repr=False)
class Scores:
    """Scores of one system with intervals, beside what blind systems score.

    ``values`` is what `measure.scores.evaluate` returns and ``ctscribe evaluate`` writes.
    """

    values: Mapping[str, Any]

    def __repr__(self) -> str:
        from ctscribe.show.tables import value_of

        model, n = self.values["model"], self.values["n"]
        shown = (f"{name} {value_of(model[name])}" for name in ("bleu_4", "coverage", "precision"))
        return f"Scores({n['scans']} scans: {', '.join(shown)})"

    def table(self) -> "Markdown":
        """Language and findings, the blind baselines below."""
        from ctscribe.show.score_tables import score_tables
        from ctscribe.show.tables import written_tables

        return Markdown(written_tables(score_tables({"Model": self.values}), "markdown"))


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

    A row is a text, or has ``report``, or ``findings`` and ``impression``; it may name its scan
    (`_KEYS`), its ``patient_id`` and its 18 ``labels``. Without patients each scan is one.

    Args:
        predictions: Any model's.
        references: Of the same scans.
        training: Reports that the blind baselines choose from; without, the other references.
        config: Profile, resamples and seed.

    Raises:
        CtscribeError: ``E_PREDICTION`` when rows do not belong together, and as
            `measure.scores.evaluate`.
    """
    from ctscribe.measure.scores import evaluate

    written, true = _records(predictions), _records(references)
    named = all(_name(row) for row in (*written, *true))
    if not named and len(written) != len(true):
        raise CtscribeError(
            "E_PREDICTION",
            f"reports that name no scan must come in the order of the references, but there are "
            f"{len(written)} for {len(true)}",
        )
    known = None if training is None else _references(_records(training), "train", named=False)
    answers = [
        PredictionRow(**_identity(row, number, named=named), **_sections(row))
        for number, row in enumerate(written)
    ]
    truth = _references(true, "valid", named=named)
    return Scores(evaluate(answers, truth, known, config or EvaluateConfig()))


def _records(rows: Rows) -> list[Mapping[str, Any]]:
    """Rows of any kind as mappings."""
    if hasattr(rows, "to_dict"):  # a data frame
        rows = rows.to_dict("records")
    found: list[Mapping[str, Any]] = []
    for row in rows:
        if isinstance(row, str):
            found.append({"report": row})
        elif isinstance(row, Mapping):
            found.append(row)
        else:
            found.append(row.model_dump())
    return found


def _name(row: Mapping[str, Any]) -> str | None:
    return next((str(row[key]) for key in _KEYS if row.get(key)), None)


def _identity(row: Mapping[str, Any], number: int, *, named: bool) -> dict[str, str]:
    scan = (named and _name(row)) or f"scan {number + 1}"
    return {
        "scan_id": scan,
        "patient_id": str(row.get("patient_id") or scan),
        "volume_name": str(row.get("volume_name") or scan),
    }


def _sections(row: Mapping[str, Any]) -> dict[str, str]:
    if "report" in row:
        findings, impression = split_report(str(row["report"] or ""))
        return {"findings": findings, "impression": impression}
    return {key: str(row.get(key) or "") for key in ("findings", "impression")}


def _references(
    rows: Sequence[Mapping[str, Any]], source_split: str, *, named: bool
) -> list[ReportedRow]:
    prefix = "" if source_split == "valid" else "training "
    found = []
    for number, row in enumerate(rows):
        identity = _identity(row, number, named=named)
        labels = row.get("labels")
        found.append(
            ReportedRow.model_validate(
                {
                    **{key: prefix + value for key, value in identity.items()},
                    **_sections(row),
                    "source_split": source_split,
                    "labels": None if labels is None else tuple(int(each) for each in labels),
                }
            )
        )
    return found
