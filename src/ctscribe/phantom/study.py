"""One scan of one patient: findings, body, drawings, report; and its rendering on any grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Canvas, paint
from ctscribe.phantom.central import (
    aortic_calcification,
    cardiomegaly,
    coronary_calcification,
    hiatal_hernia,
    lymph_nodes,
    pericardial_effusion,
)
from ctscribe.phantom.devices import medical_material
from ctscribe.phantom.diffuse import (
    bronchiectasis,
    emphysema,
    mosaic,
    septal_lines,
    thick_bronchi,
)
from ctscribe.phantom.drawing import Drawing, Plan, Scene
from ctscribe.phantom.focal import (
    atelectases,
    consolidations,
    effusions,
    nodules,
    opacities,
    scars,
)
from ctscribe.phantom.grid import Field, Grid
from ctscribe.phantom.lungs import grow, paint_lungs
from ctscribe.phantom.organs import organ_strokes
from ctscribe.phantom.prevalence import Constitution, draw_labels
from ctscribe.phantom.wall import paint_wall
from ctscribe.phantom.wording import Report, write_report
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import Lesion
from ctscribe.types import Labels

PLANS: dict[str, Plan] = {
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
    report: Report

    @property
    def labels(self) -> Labels:
        """The 18 findings in order."""
        return tuple(int(finding in self.drawings) for finding in FINDINGS)


def draw_body(rng: np.random.Generator, patient: Constitution) -> Body:
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
    patient: Constitution,
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
        burden: As for `prevalence.draw_labels`.
        lesion_scale: As for `Scene`.
        nodule_mm: As for `Scene`.
    """
    labels = draw_labels(rng, patient, burden)
    return realise(rng, body, labels, lesion_scale, nodule_mm)


def realise(
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
    for (finding, plan), stream in zip(PLANS.items(), rng.spawn(len(PLANS)), strict=True):
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


def render(study: Study, grid: Grid) -> Field:
    """Samples a study: Hounsfield units without noise, [z, y, x]."""
    canvas = Canvas.of_air(grid)
    paint_wall(canvas, study.scene.body)
    paint(canvas, organ_strokes(study.scene.body))
    paint_lungs(canvas, study.scene.body, study.scene.trees)
    for items in study.drawings.values():
        for item in items:
            item.paint(canvas)
    return canvas.hu


def lesions(study: Study, grid: Grid) -> tuple[Lesion, ...]:
    """Where the findings truly are, in the frame and the slices of one reconstruction."""
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
