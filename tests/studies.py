"""Rows of prepared studies, for tests that need some and do not mind which."""

import numpy as np

from ctscribe.base.rows import StudyRow


def study_of(scan: str, slice_indices: tuple[int, ...], **changes: object) -> StudyRow:
    """A normal chest of slices 3 mm apart.

    Args:
        scan: As CT-RATE names it, such as ``valid_1_a``; tells patient and split.
        slice_indices: Which slices are shown.
        changes: Other fields.
    """
    fields: dict[str, object] = {
        "volume_name": f"{scan}_1.nii.gz",
        "patient_id": scan.rpartition("_")[0],
        "scan_id": scan,
        "source_split": scan.partition("_")[0],
        "findings": "The lungs are clear.",
        "impression": "Normal chest.",
        "labels": None,
        "spacing_mm": (3.0, 3.0, 3.0),
        "shape_xyz": (56, 56, 100),
        "slice_indices": slice_indices,
        "position_mm": tuple(3.0 * index for index in slice_indices),
        "frame_to_ras": tuple(map(tuple, np.eye(4).tolist())),
    }
    return StudyRow.model_validate(fields | changes)
