"""Compares the image-dependence cards of several systems on the same scans.

In: each system's reports under every view. Out: a short card of each, and paired differences of
dependence from the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.card_scores import dependence, score_card
from ctscribe.measure.clinical import clinical_scores, clinical_statistics
from ctscribe.measure.intervals import NUMBER, Jackknife, with_interval
from ctscribe.measure.scans import Answers, ScanReport

_KEPT = ("n", "dependence", "verdict", "not_shown", "views")
"""Fields of a card that a comparison keeps."""


def compare_cards(
    written: Mapping[str, Mapping[str, Answers]],
    truth: Sequence[ScanReport],
    config: EvaluateConfig,
    source_name: str = "rules",
) -> dict[str, Any]:
    """Measures systems on the same scans.

    Args:
        written: System → view → what it wrote for the scans of ``truth``, in their order.
        truth: References.
        config: Gives the text profile.
        source_name: As for `score_card`.

    Returns:
        ``systems`` (name → ``dependence``, ``verdict``, ``not_shown``, ``views``, ``n``) and
        ``differences`` (name → value, low, high of its dependence minus the first system's, each
        on the view where its own is least).
    """
    jackknife = Jackknife.of([each.patient_id for each in truth])
    systems, least = {}, {}
    for name, answers in written.items():
        card = score_card({}, answers, truth, config, source_name)
        systems[name] = {key: card[key] for key in _KEPT}
        least[name] = _dependence_on(answers, card["dependence"]["against"], truth, jackknife)
    (first, base), *others = least.items()
    return {
        "base": first,
        "systems": systems,
        "differences": {
            name: with_interval(own[0] - base[0], own[1] - base[1], NUMBER.difference)
            for name, own in others
        },
        "labels": source_name,
    }


def _dependence_on(
    answers: Mapping[str, Answers], against: str, truth: Sequence[ScanReport], jackknife: Jackknife
) -> tuple[Float64[np.ndarray, "1"], Float64[np.ndarray, "rows"]]:
    """Dependence on one view: of all patients, and with each patient left out."""
    references = [report.labels for report in truth]
    sums = {
        view: jackknife.sums(clinical_statistics(predictions=each.labels, references=references))
        for view, each in answers.items()
    }
    point, without = (
        dependence({view: clinical_scores(both[i])["f1"] for view, both in sums.items()})[against]
        for i in (0, 1)
    )
    return point, without
