"""An experiment's tables, figures and worst studies on one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.export.comparison import Comparison
from ctscribe.export.page import png_uri, render
from ctscribe.export.panel import SlicePanel, slice_panel
from ctscribe.tables import Table


@final
@dataclass(frozen=True)
class Plot:
    """A figure as PNG bytes; the caption says what to see in it."""

    caption: str
    png: bytes


@final
@dataclass(frozen=True)
class ShownStudy:
    """A study's comparison with its slices, as in `export.report.PatientReport`, if any."""

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
