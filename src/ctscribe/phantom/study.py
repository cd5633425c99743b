"""One scan of one patient: labels, body, objects and report, and its rendering on any grid.

In: a random generator. Out: a `Study`, its Hounsfield units and its lesions' boxes. The same
generator state gives the same study.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.base.recipe import PhantomConfig
from ctscribe.base.rows import Lesion
from ctscribe.base.types import Labels
from ctscribe.phantom import chest_findings, lung_findings
from ctscribe.phantom.anatomy import organ_strokes, paint_wall
from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Canvas, paint
from ctscribe.phantom.drawing import DrawFinding, Drawing, Scene
from ctscribe.phantom.grid import Field, VoxelGrid
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
"""Finding → prevalence (as in CT-RATE), whether it persists from scan to scan, and its correlation
with each of `FACTORS`."""
DRAW_FINDING: dict[str, DrawFinding] = {
    "Emphysema": lung_findings.emphysema,
    "Mosaic attenuation pattern": lung_findings.mosaic_attenuation,
    "Bronchiectasis": lung_findings.bronchiectasis,
    "Peribronchial thickening": lung_findings.peribronchial_thickening,
    "Interlobular septal thickening": lung_findings.septal_thickening,
    "Lung opacity": lung_findings.opacities,
    "Consolidation": lung_findings.consolidations,
    "Pulmonary fibrotic sequela": lung_findings.fibrotic_sequelae,
    "Atelectasis": lung_findings.atelectases,
    "Lung nodule": lung_findings.nodules,
    "Pleural effusion": lung_findings.pleural_effusions,
    "Cardiomegaly": chest_findings.cardiomegaly,
    "Pericardial effusion": chest_findings.pericardial_effusion,
    "Lymphadenopathy": chest_findings.lymph_nodes,
    "Hiatal hernia": chest_findings.hiatal_hernia,
    "Arterial wall calcification": chest_findings.aortic_calcification,
    "Coronary artery wall calcification": chest_findings.coronary_calcification,
    "Medical material": chest_findings.medical_material,
}
"""Finding → the function that draws it, in painting order."""


@final
@dataclass(frozen=True)
class Patient:
    """Latent variables that determine findings and are the same in all scans of a patient.

    Args:
        factors: Standard normal, in the order of `FACTORS`.
        lasting: Standard normal, one per finding; the part that factors do not explain.
    """

    factors: npt.NDArray[np.float64]
    lasting: npt.NDArray[np.float64]

    @property
    def age_years(self) -> int:
        """Age from 18 to 93, which rises with the age factor."""
        return int(np.clip(round(52 + 16 * self.factors[1]), 18, 93))


@final
@dataclass(frozen=True)
class Study:
    """A scan before it is sampled on a grid.

    Args:
        scene: The body and its vessels.
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


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient's factors, independent of each other."""
    return Patient(rng.standard_normal(len(FACTORS)), rng.standard_normal(len(FINDINGS)))


def draw_body(rng: np.random.Generator, patient: Patient) -> Body:
    """Draws a body without disease."""
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


def draw_labels(rng: np.random.Generator, patient: Patient, burden: float) -> Labels:
    """Draws the findings of one scan; persistent ones are the same in all scans of a patient.

    A finding is present if a standard normal variable, correlated with the patient's factors and
    raised by ``burden`` standard deviations, exceeds the quantile of its prevalence.
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


def draw_study(
    rng: np.random.Generator, body: Body, patient: Patient, config: PhantomConfig
) -> Study:
    """Draws one examination of a patient: first its labels, then everything else."""
    return study_of_labels(rng, body, draw_labels(rng, patient, config.burden), config)


def study_of_labels(
    rng: np.random.Generator, body: Body, labels: Labels, config: PhantomConfig
) -> Study:
    """Turns labels into objects and a report.

    Args:
        rng: Draws everything that the labels do not determine.
        body: The patient without disease.
        labels: The 18 findings to show.
        config: Its ``lesion_scale`` and ``nodule_mm``.
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
    scene = Scene(body, grow(body), config.lesion_scale, config.nodule_mm)
    streams = rng.spawn(len(DRAW_FINDING))
    drawings = {
        finding: list(draw(stream, scene))
        for (finding, draw), stream in zip(DRAW_FINDING.items(), streams, strict=True)
        if finding in present
    }
    return Study(scene, drawings, write_report(rng, drawings, contrast=contrast))


def render(study: Study, grid: VoxelGrid) -> Field:
    """Samples a study: Hounsfield units without noise, [z, y, x]."""
    canvas = Canvas.of_air(grid)
    paint_wall(canvas, study.scene.body)
    paint(canvas, organ_strokes(study.scene.body))
    paint_lungs(canvas, study.scene.body, study.scene.trees)
    for items in study.drawings.values():
        for item in items:
            item.painted.paint(canvas)
    return canvas.hu


def lesions(study: Study, grid: VoxelGrid) -> tuple[Lesion, ...]:
    """The true boxes of the findings, in the RAS+ mm and the slices of one reconstruction."""
    return tuple(
        Lesion(
            finding=finding,
            box_mm=grid.world_box(*item.painted.box),
            size_mm=item.size_mm,
            side=item.side,
            lobe=item.lobe,
            slices=grid.slices(item.painted.box[0][2], item.painted.box[1][2]),
            sentence=study.report.sentences[finding],
        )
        for finding, items in study.drawings.items()
        for item in items
    )
