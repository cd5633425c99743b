"""Calibration as text."""

from collections.abc import Mapping
from typing import Any

from ctscribe.confidence.abstention import abstention_lines

_ROWS = {
    "findings_raw": "findings, before",
    "findings": "findings, calibrated",
    "sentences": "sentences, calibrated",
}


def calibration_lines(found: Mapping[str, Any], split: str) -> str:
    """ECE, Brier score, area under the risk–coverage curve and refusals, as Markdown."""
    lines = [f"Calibration on the {split} split", "", "| of | cases | ECE | Brier | risk |"]
    lines.append("|---|---|---|---|---|")
    for key, title in _ROWS.items():
        part = found[split][key]
        if part is not None:
            ece = part["ece"]
            lines.append(
                f"| {title} | {part['cases']} | {ece['value']:.3f} "
                f"[{ece['low']:.3f}, {ece['high']:.3f}] | {part['brier']:.3f} "
                f"| {part['area_under_risk_coverage']:.3f} |"
            )
    return "\n".join([*lines, "", abstention_lines(found["abstention"])])
