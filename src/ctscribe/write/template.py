"""Reports in stock sentences from the finding queries alone, to stand beside written ones."""

from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow, write_rows
from ctscribe.base.runs import weights_sha256
from ctscribe.data.splits import Split
from ctscribe.learn.model.features import store_features
from ctscribe.text.template import write_template
from ctscribe.write.calibration import FILE, finding_logits, read_calibration
from ctscribe.write.generate import load_for_inference, scans_of


def generate_template(
    run_dir: Path, prepared_dir: Path, recipe: Recipe, split: Split, out_path: Path
) -> list[PredictionRow]:
    """Writes one report per scan: every finding whose calibrated probability is high enough.

    Args:
        run_dir: Training run, calibrated.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        split: Whose scans.
        out_path: JSONL of `PredictionRow`.

    Raises:
        CtscribeError: ``E_MISSING`` when the run is not calibrated, ``E_NO_QUERIES``,
            ``E_EMPTY_SPLIT``, ``E_WEIGHTS``.
    """
    calibration = read_calibration(run_dir, weights_sha256(run_dir / "best"))
    if calibration is None:
        raise CtscribeError(
            "E_MISSING",
            f"the template needs {run_dir / FILE} of the run's best weights, as calibrate writes "
            "it",
        )
    scans = scans_of(prepared_dir, split, recipe.pairs.validation_fraction)
    qwen, _ = load_for_inference(run_dir, recipe)
    store = store_features(qwen, prepared_dir, scans, windows=recipe.slices.windows)
    stated = calibration.findings(finding_logits(qwen, store, scans)) >= calibration.threshold
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
