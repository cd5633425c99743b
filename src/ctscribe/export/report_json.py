"""A draft report as a JSON-able dictionary."""

from dataclasses import asdict
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.export.report import INTENDED_USE, PatientReport

SCHEMA = "ctscribe.report/1"
"""Name and version; a field changes its meaning only with the version."""


def to_json(report: PatientReport) -> dict[str, Any]:
    """Everything but the images; texts are verbatim, positions in mm, spacings along (x, y, z)."""
    return {
        "schema": SCHEMA,
        "use": RESEARCH_USE,
        "status": "preliminary" if report.not_assessable is None else "not assessable",
        "not_assessable": report.not_assessable,
        "verified": False,
        "study": report.study,
        "findings": list(report.findings),
        "impression": list(report.impression),
        "sentences": [asdict(row) for row in report.sentences],
        "labels": [asdict(row) | {"sentences": list(row.sentences)} for row in report.labels],
        "warnings": list(report.warnings),
        "slices": [
            {"slice_index": index, "position_mm": position}
            for index, position in zip(report.slice_indices, report.position_mm, strict=True)
        ],
        "model_windows": list(report.model_windows),
        "source_kind": report.source_kind,
        "geometry": {
            title: {
                "spacing_mm": list(grid.spacing_mm),
                "shape_xyz": list(grid.shape_xyz),
                "orientation": grid.orientation,
            }
            for title, grid in report.grids.items()
        },
        "provenance": asdict(report.provenance),
        "intended_use": dict(INTENDED_USE),
    }
