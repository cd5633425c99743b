"""What was noticed while a volume was read, for its record."""

from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class Notes:
    """Codes for counting, and what a record tells of them; nothing that names a patient.

    Attributes:
        codes: Warnings; see `ctscribe.errors`.
        details: What the volume's record says of its source, JSON-able: numbers of voxels that
            a repair changed by code, the DICOM series of the folder, the tilt and so on.
    """

    codes: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: "Notes") -> "Notes":
        """Both together; counts of changed voxels are joined."""
        changed = self.details.get("changed_voxels", {}) | other.details.get("changed_voxels", {})
        details = {**self.details, **other.details}
        if changed:
            details["changed_voxels"] = dict(sorted(changed.items()))
        return Notes(self.codes | other.codes, details)


def note(*codes: str, **details: Any) -> Notes:  # noqa: ANN401 - whatever JSON can hold
    """Notes of some codes, with details by name."""
    return Notes(frozenset(codes), details)


def note_if(condition: bool, code: str) -> Notes:
    """A code, if it applies."""
    return note(code) if condition else Notes()


def note_changed(**num_voxels: int) -> Notes:
    """Codes of repairs with how many voxels each changed; those of none are left out."""
    changed = {code: count for code, count in num_voxels.items() if count}
    return note(*changed, changed_voxels=changed) if changed else Notes()
