"""An experiment's tables, figures and worst studies on one self-contained HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.base.types import Labels
from ctscribe.show.page import SlicePanel, png_uri, render, slice_panel
from ctscribe.show.tables import Table
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions, label_report
from ctscribe.text.sections import sentence_spans

NUM_WORST = 20
"""Studies a scoreboard shows."""


@final
@dataclass(frozen=True)
class Sentence:
    """A sentence, and the findings in it that the other side lacks."""

    text: str
    marked: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Comparison:
    """One study: ``missing`` findings are true but not predicted, ``wrong`` ones the reverse."""

    study: str
    reference: tuple[Sentence, ...]
    prediction: tuple[Sentence, ...]
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    f1: float


def compare_reports(
    study: str, *, reference: str, prediction: str, labels: Labels | None
) -> Comparison:
    """Marks in each text the sentences that state what the other does not.

    Args:
        study: Name to show.
        reference: Both sections of the true report, one after the other.
        prediction: The same of the written one.
        labels: True findings; None reads them from ``reference``. A finding that is true by
            ``labels`` but not read in the text is listed as missing with no sentence marked.

    Returns:
        ``f1`` is 2TP/(2TP+FP+FN) over the 18 findings, and 1 where neither states any.
    """
    true = _named(label_report(reference) if labels is None else labels)
    stated = _named(label_report(prediction))
    errors = len(true ^ stated)
    return Comparison(
        study,
        _marked(reference, true - stated),
        _marked(prediction, stated - true),
        _ordered(true - stated),
        _ordered(stated - true),
        2 * len(true & stated) / (2 * len(true & stated) + errors) if true | stated else 1.0,
    )


def find_worst(comparisons: Iterable[Comparison], number: int = NUM_WORST) -> list[Comparison]:
    """The studies with the lowest F1, of equals those with more errors, then by name."""
    return sorted(
        comparisons, key=lambda each: (each.f1, -len(each.missing + each.wrong), each.study)
    )[:number]


def _named(labels: Labels) -> set[str]:
    return {finding for finding, label in zip(FINDINGS, labels, strict=True) if label}


def _ordered(findings: set[str]) -> tuple[str, ...]:
    return tuple(finding for finding in FINDINGS if finding in findings)


def _marked(text: str, findings: set[str]) -> tuple[Sentence, ...]:
    mentions = [
        mention
        for mention in find_mentions(text)
        if mention.status == "present" and mention.finding in findings
    ]
    return tuple(
        Sentence(
            text[start:end],
            _ordered({each.finding for each in mentions if start <= each.span[0] < end}),
        )
        for start, end in sentence_spans(text)
    )


@final
@dataclass(frozen=True)
class Plot:
    """A figure as PNG bytes; the caption says what to see in it."""

    caption: str
    png: bytes


@final
@dataclass(frozen=True)
class ShownStudy:
    """A study's comparison with its slices, as in `draft.PatientReport`, if any."""

    comparison: Comparison
    display: Mapping[str, UInt8[np.ndarray, "slices height width"]] = field(default_factory=dict)
    slice_indices: tuple[int, ...] = ()
    position_mm: tuple[float, ...] = ()
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0)


@final
@dataclass(frozen=True)
class StudyGroup:
    """Studies of one system that are shown for the same reason, which ``note`` says."""

    title: str
    note: str
    studies: tuple[ShownStudy, ...]


def scoreboard_page(
    title: str,
    facts: Sequence[str],
    tables: Sequence[Table],
    plots: Sequence[Plot],
    groups: Sequence[StudyGroup],
) -> str:
    """The page.

    Args:
        title: Of the experiment.
        facts: Short texts under the title: which system the studies show, date, versions.
        tables: Tables 1 and 2.
        plots: Figures.
        groups: Studies, in the order given.
    """
    number = count(1)
    shown = [
        (group, [(each.comparison, _panel(next(number), each)) for each in group.studies])
        for group in groups
    ]
    return render(
        "scoreboard.html",
        title=title,
        facts=facts,
        tables=tables,
        plots=[(plot.caption, png_uri(plot.png)) for plot in plots],
        groups=shown,
    )


def _panel(number: int, study: ShownStudy) -> SlicePanel | None:
    if not study.display:
        return None
    return slice_panel(
        f"study-{number}",
        study.display,
        study.slice_indices,
        study.position_mm,
        study.pixel_spacing_mm,
    )
