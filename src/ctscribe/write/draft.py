"""A scan's frames → what the model writes, what that rests on, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from jaxtyping import UInt8

from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import weights_sha256
from ctscribe.base.types import SpacingMm
from ctscribe.scan.show import PreparedVolume
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import Mention, find_mentions
from ctscribe.write.evidence import SentenceEvidence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    from ctscribe.learn.pairs.dataset import Visual


INTENDED_USE = {
    "Indication": "None. Drafts of chest CT reports for research on report writers.",
    "Body part": "Chest.",
    "Patient population": "Adults, in retrospective or synthetic data.",
    "User profile": "Researchers and engineers. A draft is read by a radiologist before it is "
    "used for anything.",
    "Use environment": "Research computers, outside patient care.",
    "Operating principle": "A vision-language model reads a few axial slices and writes text. "
    "It can miss findings, state findings that are not there, and has no access to prior scans.",
}
"""The six items of an intended-use statement, none of them a clinical claim."""

DRAFT = "Draft written by a model, not verified"


@final
@dataclass(frozen=True)
class VoxelGeometry:
    """Geometry of a volume; ``orientation`` names the voxel axes' directions, e.g. ``RAS``."""

    spacing_mm: SpacingMm
    shape_xyz: tuple[int, int, int]
    orientation: str


@final
@dataclass(frozen=True)
class FindingRow:
    """What the written report says about one finding, read off by the labeler.

    ``sentences`` are those it rests on, verbatim; ``probability`` is a label head's, if there
    is one.
    """

    finding: str
    status: Literal["present", "uncertain", "absent", "not mentioned"]
    sentences: tuple[str, ...] = ()
    probability: float | None = None


@final
@dataclass(frozen=True)
class SliceEvidence:
    """A slice that a sentence rests on, with a box in pixels (left, top, right, bottom).

    ``number`` counts the report's slices from 1.
    """

    number: int
    slice_index: int
    position_mm: float
    box_px: tuple[int, int, int, int] | None


@final
@dataclass(frozen=True)
class SentenceRow:
    """What one sentence rests on, and how sure it is.

    ``confidence`` is the calibrated probability that what it says of the 18 findings is true;
    ``boilerplate`` sentences rest on no particular slice; ``drop`` is how many nats less probable
    the sentence is without the slices named.
    """

    slices: tuple[SliceEvidence, ...]
    boilerplate: bool
    drop: float
    confidence: float | None = None


@final
@dataclass(frozen=True)
class Provenance:
    """What made the report; ``created`` is an ISO 8601 date and time."""

    ctscribe_version: str
    model_preset: str
    weights_sha256: str
    recipe_sha256: str
    created: str


@final
@dataclass(frozen=True)
class PatientReport:
    """A draft report with the slices it was written from. Plain values; no patient data.

    Args:
        study: Name the user gave the study, or a hash of its voxels; never read from a header.
        findings: Sentences of the Findings section, in order.
        impression: Sentences of the Impression section, in order.
        labels: One row per finding, in any order.
        model_windows: Windows in which the model saw the slices, named with centre and width.
        display: Window, named with centre and width, to the slices drawn in it: anterior up,
            the patient's right on the left, in the order of ``slice_indices``.
        slice_indices: z index of each slice in the volume that was read.
        position_mm: Superior coordinate of each slice in RAS+ mm.
        pixel_spacing_mm: Size of a displayed pixel along (columns, rows).
        source_kind: Format of the source.
        grids: Title to geometry, e.g. the source's and the resampled volume's.
        warnings: Sentences on what the reader must know first.
        provenance: What made it.
        sentences: What each sentence rests on, first those of the Findings; empty when unknown.
        not_assessable: Why there is no report, in one sentence; None for a report.
    """

    study: str
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    labels: tuple[FindingRow, ...]
    model_windows: tuple[str, ...]
    display: Mapping[str, UInt8[np.ndarray, "slices height width"]]
    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    source_kind: Literal["DICOM", "NIfTI"]
    grids: Mapping[str, VoxelGeometry]
    warnings: tuple[str, ...]
    provenance: Provenance
    sentences: tuple[SentenceRow, ...] = ()
    not_assessable: str | None = None


def sentence_rows(
    evidence: Sequence[SentenceEvidence],
    confidences: Sequence[float | None],
) -> tuple[SentenceRow, ...]:
    """The two slices each sentence rests on most, and whether it is boilerplate.

    A sentence that affirms a finding is never boilerplate: its finding has slices even where its
    words follow from the words before.

    Args:
        evidence: From `evidence.explain`.
        confidences: Calibrated, per sentence, where known.
    """
    rows = []
    for each, confidence in zip(evidence, confidences, strict=True):
        boilerplate = not each.particular and not each.findings
        best = each.pairs[0]
        numbers = (2 * best.pair + 1, 2 * best.pair + 2)
        slices = tuple(
            SliceEvidence(number, index, position, best.box_px)
            for number, index, position in zip(
                numbers, best.slice_indices, best.position_mm, strict=True
            )
        )
        rows.append(SentenceRow(() if boilerplate else slices, boilerplate, best.drop, confidence))
    return tuple(rows)


def finding_rows(text: str) -> tuple[FindingRow, ...]:
    """One row per finding, in the order of `FINDINGS`.

    A finding affirmed anywhere is present; else hedged, uncertain; else denied, absent. Its
    sentences are those that say so.
    """
    mentions = find_mentions(text)
    return tuple(
        _row(finding, [mention for mention in mentions if mention.finding == finding])
        for finding in FINDINGS
    )


def _row(finding: str, mentions: list[Mention]) -> FindingRow:
    for status in ("present", "uncertain", "absent"):
        sentences = dict.fromkeys(each.sentence for each in mentions if each.status == status)
        if sentences:
            return FindingRow(finding, status, tuple(sentences))
    return FindingRow(finding, "not mentioned")


@final
@dataclass(frozen=True)
class Draft:
    """The written text; ``probabilities`` are calibrated, where the run is."""

    text: str
    sentences: tuple[SentenceRow, ...] = ()
    probabilities: tuple[float, ...] | None = None


def write_draft(run_dir: Path, recipe: Recipe, prepared: PreparedVolume) -> Draft:
    """Writes a report and asks the same model which slices each sentence rests on.

    Args:
        run_dir: Training run whose ``best`` weights write, and whose calibration is used.
        recipe: The run's recipe.
        prepared: The scan.

    Raises:
        CtscribeError: ``E_WEIGHTS`` when the weights are not complete.
    """
    import torch

    from ctscribe.learn.model.patches import PATCH_PX
    from ctscribe.learn.model.qwen import encode_frames
    from ctscribe.learn.pairs.dataset import Visual, slice_pair_positions
    from ctscribe.write.generate import load_for_inference, write_for

    qwen, tokenizer = load_for_inference(run_dir, recipe)
    slices, height, width, _ = prepared.frames.shape
    with torch.inference_mode():
        tokens = encode_frames(qwen, [torch.from_numpy(prepared.frames)])
    visual = Visual(
        grid_thw=(slices // 2, height // PATCH_PX, width // PATCH_PX),
        position_mm=slice_pair_positions(prepared.position_mm),
        visual_tokens=tokens,
    )
    knobs = recipe.generate
    written = write_for(qwen, tokenizer, [visual], recipe.model.positions, knobs.max_new_tokens)
    return _with_evidence(qwen, tokenizer, written[0].text, visual, run_dir, recipe, prepared)


def _with_evidence(
    qwen: "Qwen2_5_VLForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    text: str,
    visual: "Visual",
    run_dir: Path,
    recipe: Recipe,
    prepared: PreparedVolume,
) -> Draft:
    from ctscribe.text.sections import split_report
    from ctscribe.write.calibration import read_calibration, sentence_confidences
    from ctscribe.write.evidence import explain, see, show
    from ctscribe.write.sentences import read_report

    report = read_report(*split_report(text), tokenizer)
    if not report.sentences:
        return Draft(text)
    shown = show(qwen, tokenizer, report.answer, visual, recipe.model.positions)
    evidence = explain(qwen, report, shown, prepared.slice_indices, prepared.position_mm)
    calibration = read_calibration(run_dir, weights_sha256(run_dir / "best"))
    seen = see(qwen, shown)
    probabilities = None
    confidences: list[float | None] = [None] * len(evidence)
    if calibration is not None and seen is not None:
        logits = seen.logits.double().cpu().numpy()[None]
        probabilities = tuple(calibration.findings(logits)[0].tolist())
        scores = [(each.log_prob, each.num_tokens) for each in evidence]
        confidences = sentence_confidences(report.sentences, scores, probabilities, calibration)
    rows = sentence_rows(evidence, confidences)
    return Draft(text, rows, probabilities)
