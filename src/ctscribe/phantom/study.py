"""One scan of one patient: findings, body, drawings, report; and its rendering on any grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.base.rows import Lesion
from ctscribe.base.types import Labels
from ctscribe.phantom.anatomy import organ_strokes, paint_wall
from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Canvas, paint
from ctscribe.phantom.chest_findings import (
    aortic_calcification,
    cardiomegaly,
    coronary_calcification,
    hiatal_hernia,
    lymph_nodes,
    medical_material,
    pericardial_effusion,
)
from ctscribe.phantom.drawing import DrawFinding, Drawing, Scene
from ctscribe.phantom.grid import Field, VoxelGrid
from ctscribe.phantom.lung_findings import (
    atelectases,
    bronchiectasis,
    consolidations,
    effusions,
    emphysema,
    mosaic,
    nodules,
    opacities,
    scars,
    septal_lines,
    thick_bronchi,
)
from ctscribe.phantom.lungs import grow, paint_lungs
from ctscribe.phantom.wording import PhantomReport, write_report
from ctscribe.text.findings import FINDINGS

FACTORS = ("illness", "age", "infection", "heart failure", "smoking")
FINDING_MODEL: dict[str, tuple[float, bool, tuple[float, float, float, float, float]]] = {
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
class Patient:
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


def draw_patient(rng: np.random.Generator) -> Patient:
    """A new patient."""
    return Patient(rng.standard_normal(len(FACTORS)), rng.standard_normal(len(FINDINGS)))


def draw_labels(rng: np.random.Generator, patient: Patient, burden: float = 0.0) -> Labels:
    """The findings of one scan; lasting ones agree between scans, the others are drawn anew.

    Args:
        rng: Of the scan.
        patient: Whose scan it is.
        burden: Added to the drive of every finding, in standard deviations.
    """
    passing = rng.standard_normal(len(FINDINGS))
    labels = []
    for index, finding in enumerate(FINDINGS):
        share, lasts, weights = FINDING_MODEL[finding]
        load = np.array(weights)
        own = patient.lasting[index] if lasts else passing[index]
        drive = load @ patient.factors + np.sqrt(1 - load @ load) * own
        labels.append(int(drive + burden > NormalDist().inv_cdf(1 - share)))
    return tuple(labels)


DRAW_FINDING: dict[str, DrawFinding] = {
    "Emphysema": emphysema,
    "Mosaic attenuation pattern": mosaic,
    "Bronchiectasis": bronchiectasis,
    "Peribronchial thickening": thick_bronchi,
    "Interlobular septal thickening": septal_lines,
    "Lung opacity": opacities,
    "Consolidation": consolidations,
    "Pulmonary fibrotic sequela": scars,
    "Atelectasis": atelectases,
    "Lung nodule": nodules,
    "Pleural effusion": effusions,
    "Cardiomegaly": cardiomegaly,
    "Pericardial effusion": pericardial_effusion,
    "Lymphadenopathy": lymph_nodes,
    "Hiatal hernia": hiatal_hernia,
    "Arterial wall calcification": aortic_calcification,
    "Coronary artery wall calcification": coronary_calcification,
    "Medical material": medical_material,
}
"""How each finding is decided, in the order in which they are painted."""


@final
@dataclass(frozen=True)
class Study:
    """A scan before it is sampled.

    Args:
        scene: The patient.
        drawings: Objects of each finding present, in painting order.
        report: What is written about it.
    """

    scene: Scene
    drawings: Mapping[str, Sequence[Drawing]]
    report: PhantomReport

    @property
    def labels(self) -> Labels:
        """The 18 findings in order."""
        return tuple(int(finding in self.drawings) for finding in FINDINGS)


def draw_body(rng: np.random.Generator, patient: Patient) -> Body:
    """A build without disease; the same generator state gives the same patient."""
    female = bool(rng.random() < 0.45)
    size = rng.normal(0.95 if female else 1.02, 0.035)
    wide, deep, long = np.clip(size * rng.normal(1, 0.03, 3), 0.86, 1.12)
    return Body(
        scale=(float(wide), float(deep), float(long)),
        fat_mm=float(np.clip(rng.normal(18, 6), 7, 34)),
        female=female,
        age_years=patient.age_years,
        heart_scale=float(rng.uniform(0.9, 1.0)),
        inspiration_mm=float(rng.normal(0, 6)),
        seed=int(rng.integers(1 << 31)),
    )


def draw_study(
    rng: np.random.Generator,
    body: Body,
    patient: Patient,
    *,
    burden: float = 0.0,
    lesion_scale: float = 1.0,
    nodule_mm: float = 9.0,
) -> Study:
    """One examination of a patient.

    Args:
        rng: Of the scan.
        body: The patient's.
        patient: The patient's.
        burden: As for `draw_labels`.
        lesion_scale: As for `Scene`.
        nodule_mm: As for `Scene`.
    """
    labels = draw_labels(rng, patient, burden)
    return study_of_labels(rng, body, labels, lesion_scale, nodule_mm)


def study_of_labels(
    rng: np.random.Generator,
    body: Body,
    labels: Labels,
    lesion_scale: float = 1.0,
    nodule_mm: float = 9.0,
) -> Study:
    """Turns labels into objects and a report.

    Args:
        rng: Draws everything that the labels leave open.
        body: The patient without disease.
        labels: The 18 findings to show.
        lesion_scale: As for `Scene`.
        nodule_mm: As for `Scene`.
    """
    present = {finding for finding, label in zip(FINDINGS, labels, strict=True) if label}
    contrast = bool(rng.random() < 0.35)
    enlarged, fluid = rng.uniform(1.22, 1.4), float(round(rng.uniform(7, 24)))
    body = replace(
        body,
        contrast=contrast,
        heart_scale=float(enlarged) if "Cardiomegaly" in present else body.heart_scale,
        pericardial_mm=fluid if "Pericardial effusion" in present else 0.0,
    )
    scene = Scene(body, grow(body), lesion_scale, nodule_mm)
    drawings: dict[str, list[Drawing]] = {}
    for (finding, plan), stream in zip(
        DRAW_FINDING.items(), rng.spawn(len(DRAW_FINDING)), strict=True
    ):
        if finding in present:
            drawings[finding] = plan(stream, scene)
    return Study(scene, drawings, write_report(rng, drawings, contrast=contrast))


def without(study: Study, finding: str) -> Study:
    """The same study with one finding healed; its report is left as it was."""
    body = study.scene.body
    if finding == "Cardiomegaly":
        body = replace(body, heart_scale=0.96)
    if finding == "Pericardial effusion":
        body = replace(body, pericardial_mm=0.0)
    rest = {name: items for name, items in study.drawings.items() if name != finding}
    return Study(replace(study.scene, body=body), rest, study.report)


def render(study: Study, grid: VoxelGrid) -> Field:
    """Samples a study: Hounsfield units without noise, [z, y, x]."""
    canvas = Canvas.of_air(grid)
    paint_wall(canvas, study.scene.body)
    paint(canvas, organ_strokes(study.scene.body))
    paint_lungs(canvas, study.scene.body, study.scene.trees)
    for items in study.drawings.values():
        for item in items:
            item.paint(canvas)
    return canvas.hu


def lesions(study: Study, grid: VoxelGrid) -> tuple[Lesion, ...]:
    """Laterality the findings truly are, in the frame and the slices of one reconstruction."""
    return tuple(
        Lesion(
            finding=finding,
            box_mm=grid.world_box(*item.box),
            size_mm=item.size_mm,
            side=item.side,
            lobe=item.lobe,
            slices=grid.slices(item.box[0][2], item.box[1][2]),
            sentence=study.report.sentences[finding],
        )
        for finding, items in study.drawings.items()
        for item in items
    )
