"""Cues from a table of finding probabilities, made by any classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file
from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.cues import cue_of
from ctscribe.learn.model.temperature import choose_threshold
from ctscribe.text.report_tables import read_probabilities


@final
@dataclass(frozen=True)
class CueTable:
    """Gives the findings that each scan's prompt states."""

    path: Path
    sha256: str
    probabilities: Mapping[str, tuple[float, ...]]
    """Probabilities of the 18 findings, by volume or scan name."""
    threshold: float = 0.5
    """Probability from which a finding is stated."""

    def of(self, *names: str) -> tuple[str, ...]:
        """The cue of the first of these names that has a row.

        Raises:
            CtscribeError: ``E_CUES`` when none has.
        """
        found = self._row(*names)
        if found is None:
            raise CtscribeError(
                "E_CUES", f"{self.path} must have a row for every scan, but none for {names[0]}"
            )
        return cue_of([p >= self.threshold for p in found])

    def _row(self, *names: str) -> tuple[float, ...] | None:
        return next((self.probabilities[n] for n in names if n in self.probabilities), None)

    def at(self, scans: Sequence[StudyRow], point: str) -> "CueTable":
        """The table with another threshold, chosen on labelled scans; see `choose_threshold`.

        Raises:
            CtscribeError: ``E_OPERATING_POINT``, ``E_CUES``.
        """
        rows = [(self._row(each.volume_name, each.scan_id), each.labels) for each in scans]
        known = [(found, labels) for found, labels in rows if found and labels]
        if not known:
            raise CtscribeError(
                "E_CUES",
                f"{self.path} must have rows for labelled validation scans to choose a threshold "
                "on, but has none",
            )
        probability, truth = (np.array(column) for column in zip(*known, strict=True))
        threshold = choose_threshold(probability, truth > 0, point)
        return CueTable(self.path, self.sha256, self.probabilities, threshold)


def read_cue_table(path: Path) -> CueTable:
    """Reads a CSV of VolumeName, or another column that names scans, and the 18 findings.

    Raises:
        CtscribeError: As `read_probabilities`.
    """
    return CueTable(path, sha256_of_file(path), read_probabilities(path))
