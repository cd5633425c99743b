"""Which findings a patient has: CT-RATE's prevalences, tied by age, infection, failure, smoking."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.reports.findings import FINDINGS
from ctscribe.types import Labels

FACTORS = ("illness", "age", "infection", "heart failure", "smoking")
TABLE: dict[str, tuple[float, bool, tuple[float, float, float, float, float]]] = {
    "Medical material": (0.120, True, (0.30, 0.30, 0.00, 0.30, 0.00)),
    "Arterial wall calcification": (0.278, True, (0.30, 0.75, 0.00, 0.05, 0.10)),
    "Cardiomegaly": (0.110, True, (0.30, 0.35, 0.00, 0.60, 0.00)),
    "Pericardial effusion": (0.070, False, (0.30, 0.00, 0.05, 0.60, 0.00)),
    "Coronary artery wall calcification": (0.248, True, (0.30, 0.75, 0.00, 0.10, 0.10)),
    "Hiatal hernia": (0.140, True, (0.30, 0.45, 0.00, 0.00, 0.00)),
    "Lymphadenopathy": (0.253, False, (0.45, 0.05, 0.25, 0.10, 0.05)),
    "Emphysema": (0.190, True, (0.30, 0.20, 0.00, 0.00, 0.60)),
    "Atelectasis": (0.256, False, (0.45, 0.20, 0.10, 0.25, 0.00)),
    "Lung nodule": (0.455, True, (0.48, 0.10, -0.10, 0.00, 0.15)),
    "Lung opacity": (0.367, False, (0.45, -0.05, 0.55, 0.10, 0.00)),
    "Pulmonary fibrotic sequela": (0.267, True, (0.45, 0.25, -0.05, 0.00, 0.15)),
    "Pleural effusion": (0.120, False, (0.30, 0.15, 0.20, 0.60, 0.00)),
    "Mosaic attenuation pattern": (0.080, False, (0.30, 0.10, 0.00, 0.10, 0.30)),
    "Peribronchial thickening": (0.100, False, (0.30, 0.05, 0.20, 0.00, 0.40)),
    "Consolidation": (0.180, False, (0.38, 0.00, 0.65, 0.10, 0.00)),
    "Bronchiectasis": (0.100, True, (0.45, 0.10, 0.10, 0.00, 0.35)),
    "Interlobular septal thickening": (0.080, False, (0.30, 0.05, 0.20, 0.55, 0.00)),
}
"""Prevalence; whether it stays from scan to scan; how strongly each factor drives it."""


@final
@dataclass(frozen=True)
class Constitution:
    """What stays the same over a patient's scans.

    Args:
        factors: Standard normal, in the order of `FACTORS`.
        lasting: The patient's own share of each finding, standard normal, [18].
    """

    factors: npt.NDArray[np.float64]
    lasting: npt.NDArray[np.float64]

    @property
    def age_years(self) -> int:
        """18 to 93, rising with the age factor."""
        return int(np.clip(round(52 + 16 * self.factors[1]), 18, 93))


def draw_constitution(rng: np.random.Generator) -> Constitution:
    """A new patient."""
    return Constitution(rng.standard_normal(len(FACTORS)), rng.standard_normal(len(FINDINGS)))


def draw_labels(rng: np.random.Generator, patient: Constitution, burden: float = 0.0) -> Labels:
    """The findings of one scan; lasting ones agree between scans, the others are drawn anew.

    Args:
        rng: Of the scan.
        patient: Whose scan it is.
        burden: Added to the drive of every finding, in standard deviations.
    """
    passing = rng.standard_normal(len(FINDINGS))
    labels = []
    for index, finding in enumerate(FINDINGS):
        share, lasts, weights = TABLE[finding]
        load = np.array(weights)
        own = patient.lasting[index] if lasts else passing[index]
        drive = load @ patient.factors + np.sqrt(1 - load @ load) * own
        labels.append(int(drive + burden > NormalDist().inv_cdf(1 - share)))
    return tuple(labels)
