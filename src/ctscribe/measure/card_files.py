"""The image-dependence card of any model: writes the altered volumes, then scores its reports.

In: prepared volumes; later one file of reports per view. Out: ``OUT/<view>/<name>.nii.gz``; later
``card.json`` with the scores of the reports, for which no model is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    atomic_write,
    sha256_of_file,
    write_json,
)
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import sha256_of_rows
from ctscribe.base.runs import open_run
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared, stem
from ctscribe.measure.card_scores import NEEDED, score_card
from ctscribe.measure.card_views import VIEWS, scans_with_strangers, seed_of
from ctscribe.measure.card_volumes import VOLUMES
from ctscribe.measure.predictions import Noticed, read_predictions
from ctscribe.measure.references import References
from ctscribe.measure.scans import (
    RULES,
    Answers,
    LabelSource,
    ScanReport,
    as_reports,
    match_predictions,
    one_row_per_scan,
)
from ctscribe.scan.stores import nifti_header
from ctscribe.scan.volume import CTVolume

_SUFFIXES = (".jsonl", ".csv", ".json")


def find_view_files(folder: Path) -> dict[str, Path]:
    """View → the file of reports written from it, such as ``noise.csv``; empty without any.

    Raises:
        CtscribeError: ``E_CARD`` when a view has two files.
    """
    found: dict[str, Path] = {}
    for view in VIEWS:
        names = f"{view}", f"reports_{view}"  # as the card of a run calls its own
        paths = [folder / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            raise CtscribeError(
                "E_CARD",
                f"{folder} must hold one file of reports for each view, but has "
                f"{' and '.join(path.name for path in present)}",
            )
        if present:
            found[view] = present[0]
    return found


def make_card_of_files(
    paths: Mapping[str, Path],
    references: References,
    config: EvaluateConfig,
    out_dir: Path,
    source: LabelSource = RULES,
) -> dict[str, Any]:
    """Writes ``card.json`` from reports alone, without cross entropy, which needs the model.

    Raises:
        CtscribeError: As `read_views`.
    """
    noticed = Noticed()
    truth, answers = read_views(paths, references, source, noticed)
    card = {
        "predictions_sha256": {view: sha256_of_file(path) for view, path in paths.items()},
        "split": references.split,
        "studies_sha256": sha256_of_rows(one_row_per_scan(references.studies)),
        **score_card({}, answers, truth, config, source.name),
        "noticed": noticed.facts(),
        "use": RESEARCH_USE,
    }
    write_json(out_dir / "card.json", card)
    return card


def read_views(
    paths: Mapping[str, Path],
    references: References,
    source: LabelSource = RULES,
    noticed: Noticed | None = None,
) -> tuple[list[ScanReport], dict[str, Answers]]:
    """The references, one per scan, and the reports of each view in the same order.

    Args:
        paths: View → file of reports; at least ``real`` and ``other_patient``.
        references: The true reports.
        source: Reads the findings.
        noticed: Counts what was removed from the files.

    Raises:
        CtscribeError: ``E_CARD`` without those two views or without reports for some scans,
            ``E_EMPTY_SPLIT``, and what `read_predictions` and `match_predictions` raise.
    """
    lacking = [view for view in NEEDED if view not in paths]
    if lacking:
        raise CtscribeError(
            "E_CARD",
            f"a card needs the reports of the views {' and '.join(NEEDED)}, but there is no "
            f"{lacking[0]}.csv",
        )
    scans = one_row_per_scan(references.studies)
    if not scans:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the {references.split or 'references'} split must have scans, but has none",
        )
    truth, noticed = as_reports(scans, source), noticed or Noticed()
    answers = {
        view: _read_view(path, references, truth, source, noticed) for view, path in paths.items()
    }
    return truth, answers


def _read_view(
    path: Path,
    references: References,
    truth: Sequence[ScanReport],
    source: LabelSource,
    noticed: Noticed,
) -> Answers:
    written = read_predictions(path, references.studies, references.left_out, noticed)
    answers, missing = match_predictions(written, truth, source)
    if missing:
        # missing reports would lower the view's scores
        raise CtscribeError(
            "E_CARD",
            f"{path} must hold a report for every scan, but lacks {len(missing)} of "
            f"{len(truth)}, the first {missing[0]}",
        )
    return answers


def write_altered(
    prepared: Prepared,
    split: Split,
    out: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> int:
    """Writes ``OUT/<view>/<name>.nii.gz``, int16 HU, for every scan of a split and every view.

    Existing files are kept, so an interrupted call can be repeated. ``progress`` is called with
    (files written, all). Returns the number of scans.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_RUN_EXISTS`` when the
            folder holds the views of other scans, ``E_MISSING`` without prepared volumes,
            ``E_BUSY``.
    """
    scans, strangers = scans_with_strangers(prepared.split(split))
    asked = {"split": split, "views": VIEWS, "studies_sha256": sha256_of_rows(scans)}
    for scan in scans:
        prepared.require_volume(scan)
    with one_writer(out):
        open_run(out, "alter", asked)
        there = sum(1 for path in out.glob("*/*.nii.gz"))
        progress(there, len(VIEWS) * len(scans))
        for number, scan in enumerate(scans):
            paths = {view: out / view / f"{stem(scan.volume_name)}.nii.gz" for view in VIEWS}
            if any(not path.exists() for path in paths.values()):
                own, other = map(prepared.volume, (scan, strangers[scan.volume_name]))
            for done, (view, path) in enumerate(paths.items(), 1 + number * len(VIEWS)):
                if not path.exists():
                    _write(path, VOLUMES[view](own, other, seed_of(scan)))
                progress(done, len(VIEWS) * len(scans))
        return len(scans)


def _write(path: Path, volume: CTVolume) -> None:
    with (
        atomic_write(path) as file,
        igzip.IGzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as gz,
    ):
        gz.write(nifti_header(volume.shape_xyz, volume.affine))
        for plane in volume.hu.T:
            gz.write(np.ascontiguousarray(plane, dtype="<i2").data)
