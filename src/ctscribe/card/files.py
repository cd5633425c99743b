"""Any model's card, from the reports it wrote for the altered volumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.card.score import AGAINST, score_card
from ctscribe.card.views import VIEWS
from ctscribe.card.write import write_card
from ctscribe.config import EvaluateConfig
from ctscribe.errors import CtscribeError
from ctscribe.evaluate.label_source import RULES, LabelSource
from ctscribe.evaluate.predictions import read_predictions
from ctscribe.evaluate.references import References
from ctscribe.evaluate.scans import Answers, Report, as_reports, match_predictions, one_row_per_scan
from ctscribe.files import sha256_of_file, sha256_of_json

SUFFIXES = (".jsonl", ".csv", ".json")


def find_view_files(folder: Path) -> dict[str, Path]:
    """View → the file of reports written from it, such as ``noise.csv``; empty without any.

    Raises:
        CtscribeError: ``E_CARD`` when a view has two files.
    """
    found: dict[str, Path] = {}
    for view in VIEWS:
        paths = [folder / f"{view}{suffix}" for suffix in SUFFIXES]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            raise CtscribeError(
                "E_CARD",
                f"{folder} must hold one file of reports for each view, but has "
                f"{' and '.join(path.name for path in present)}",
            )
        found.update(zip([view], present, strict=False))
    return found


def make_card_of_files(
    paths: Mapping[str, Path],
    references: References,
    config: EvaluateConfig,
    out_dir: Path,
    source: LabelSource = RULES,
) -> dict[str, Any]:
    """Scores and writes the card's text side; cross entropy needs the model and is left out.

    Args:
        paths: View → file of reports; ``real`` and ``other_patient`` at least.
        references: Of the scans the views are of.
        config: Text profile, draws and their seed.
        out_dir: Gets ``card.json``, ``card.md`` and ``card.png``.
        source: Reads the findings of the reports.

    Raises:
        CtscribeError: ``E_CARD`` without those two views or without reports for some scans,
            ``E_EMPTY_SPLIT``, and what `read_predictions` and `match_predictions` raise.
    """
    lacking = [view for view in ("real", AGAINST) if view not in paths]
    if lacking:
        raise CtscribeError(
            "E_CARD",
            f"a card needs the reports of the views real and {AGAINST}, but there is no "
            f"{lacking[0]}.csv",
        )
    scans = one_row_per_scan(references.studies)
    if not scans:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"the {references.split or 'references'} split must have scans, but has none",
        )
    truth = as_reports(scans, source)
    answers = {view: _answers(path, references, truth, source) for view, path in paths.items()}
    identity = {
        "predictions_sha256": {view: sha256_of_file(path) for view, path in paths.items()},
        "split": references.split,
        "studies_sha256": sha256_of_json([scan.model_dump(mode="json") for scan in scans]),
    }
    card = identity | score_card({}, answers, truth, config, source.name) | {"use": RESEARCH_USE}
    write_card(out_dir, card)
    return card


def _answers(
    path: Path, references: References, truth: Sequence[Report], source: LabelSource
) -> Answers:
    written = read_predictions(path, references.studies, references.left_out)
    answers, missing = match_predictions(written, truth, source)
    if missing:
        # A view without some reports would look worse for want of them.
        raise CtscribeError(
            "E_CARD",
            f"{path} must hold a report for every scan, but lacks {len(missing)} of "
            f"{len(truth)}, the first {missing[0]}",
        )
    return answers
