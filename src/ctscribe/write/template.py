"""Reports in stock sentences from the finding queries alone, to stand beside written ones."""

from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import PredictionRow, StudyRow, write_rows
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.text.template import write_template
from ctscribe.write.calibration import FILE
from ctscribe.write.writer import ReportWriter


def generate_template(
    writer: ReportWriter, prepared: Prepared, split: Split, out_path: Path
) -> list[PredictionRow]:
    """Writes JSONL, one report per scan: the findings whose calibrated probability is high enough.

    Raises:
        CtscribeError: ``E_MISSING`` when the run is not calibrated, ``E_NO_QUERIES``,
            ``E_EMPTY_SPLIT``, ``E_PREPARED``.
    """
    calibration = writer.calibration
    if calibration is None:
        raise CtscribeError(
            "E_MISSING",
            f"the template needs {writer.run_dir / FILE} of the run's best weights, as "
            "`ctscribe calibrate` writes it",
        )
    scans = prepared.scans(split)
    store = writer.features(prepared, scans)
    logits = writer.finding_logits([store.visual(study) for study in scans])
    stated = calibration.findings(logits) >= calibration.threshold
    rows = [_row(study, labels) for study, labels in zip(scans, stated, strict=True)]
    write_rows(out_path, rows)
    return rows


def _row(study: StudyRow, stated: np.ndarray) -> PredictionRow:
    findings, impression = write_template(tuple(int(each) for each in stated))
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=findings,
        impression=impression,
        num_tokens=0,
        finished=True,
    )
