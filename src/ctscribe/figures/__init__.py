"""Figures of scores, as PNG and SVG."""

from ctscribe.figures.card import card_figure
from ctscribe.figures.curves import beta_figure, strata_figure
from ctscribe.figures.findings import per_finding_figure
from ctscribe.figures.likeness import likeness_figure
from ctscribe.figures.style import Estimate, image_bytes, write_figure

__all__ = [
    "Estimate",
    "beta_figure",
    "card_figure",
    "image_bytes",
    "likeness_figure",
    "per_finding_figure",
    "strata_figure",
    "write_figure",
]
