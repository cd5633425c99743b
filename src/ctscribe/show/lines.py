"""Faithfulness as text."""

from collections.abc import Mapping
from typing import Any

from ctscribe.base.tables import format_markdown
from ctscribe.measure.calibrate import abstention_lines

_ROWS = {
    "findings_raw": "findings, before",
    "findings": "findings, calibrated",
    "sentences": "sentences, calibrated",
}


def calibration_lines(found: Mapping[str, Any], split: str) -> str:
    """ECE, Brier score, area under the risk–coverage curve and refusals, as Markdown."""
    parts = {title: found[split][key] for key, title in _ROWS.items()}
    measured = [
        (
            title,
            part["cases"],
            f"{part['ece']['value']:.3f} [{part['ece']['low']:.3f}, {part['ece']['high']:.3f}]",
            f"{part['brier']:.3f}",
            f"{part['area_under_risk_coverage']:.3f}",
        )
        for title, part in parts.items()
        if part is not None
    ]
    lines = format_markdown(("of", "cases", "ECE", "Brier", "risk"), measured)
    refused = abstention_lines(found["abstention"])
    return "\n".join([f"Calibration on the {split} split", "", *lines, "", refused])


_NAMES = {
    "attention": "finding queries",
    "leave_one_out": "leave one out",
    "random": "random slices",
    "chance": "expected by chance",
}


def faithfulness_lines(found: Mapping[str, Any]) -> str:
    """Hit rates of each method with their intervals, as Markdown."""
    lines = []
    for group, title in (("all", "all findings"), ("focal", "findings on at most half the slices")):
        part = found[group]
        lines += [
            f"Sentences that state a true finding, {title}: {part['sentences']}",
            "",
        ]
        hits = [
            (label, *(with_bounds(part[f"hit@{k}"][name]) for k in (1, 3)))
            for name, label in _NAMES.items()
            if name in part["hit@1"]
        ]
        lines += format_markdown(("ranked by", "hit@1", "hit@3"), hits)
        boxes = part["overlap"]
        lines += [
            "",
            f"Overlap of boxes (IoU): {with_bounds(boxes['attention'])}, "
            f"random places {with_bounds(boxes['random'])}",
            "",
        ]
    return "\n".join(lines).rstrip()


def with_bounds(score: Mapping[str, float | None]) -> str:
    """A score with its interval, or a dash where there is none."""
    if score["value"] is None:
        return "–"
    if score["low"] is None:
        return f"{score['value']:.2f}"
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
