"""A scan's frames → what the model writes, what that rests on, and how sure it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from ctscribe.config import Recipe
from ctscribe.export.report import SentenceRow
from ctscribe.run import weights_sha256
from ctscribe.slices.show import PreparedVolume

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    from ctscribe.pairs.dataset import Visual


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

    from ctscribe.generate import load_for_inference, write_for
    from ctscribe.model.qwen import PATCH_PX, encode_frames
    from ctscribe.pairs.dataset import Visual, slice_pair_positions

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
    from ctscribe.confidence.calibration import read_calibration, sentence_confidences
    from ctscribe.evidence.explain import explain, see
    from ctscribe.evidence.leave_out import show
    from ctscribe.evidence.sentences import read_report
    from ctscribe.export.evidence import sentence_rows
    from ctscribe.reports.sections import split_report

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
