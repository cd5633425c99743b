"""Cues: findings stated in the prompt, before the report is written.

In: a visual input. Out: the same with a cue. A cue belongs to the volume that is shown, so a wrong
volume comes with its own cue and not with the report's.

In training the cue is made of the true labels; when reports are written, of what the finding
queries or a table say. So the model learns to follow its cue. Trained on the queries' own output it
learns to doubt it, and states less of what they see (docs/LOG.md).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from transformers import PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.finding_queries import finding_queries_of, locate_findings
from ctscribe.learn.model.tower import project_features
from ctscribe.learn.pairs.dataset import Visual, VisualSource
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import known_labels


def cue_of(stated: Sequence[bool | int]) -> tuple[str, ...]:
    """The names of the findings that are true in ``stated``, in CT-RATE's order."""
    return tuple(finding for finding, is_there in zip(FINDINGS, stated, strict=True) if is_there)


@torch.inference_mode()
def finding_logits(
    qwen: PreTrainedModel, visuals: Sequence[Visual]
) -> Float64[np.ndarray, "volumes 18"]:
    """Raw log-odds of the 18 findings by a model's finding queries, from stored features.

    Raises:
        CtscribeError: ``E_NO_QUERIES`` when it has none.
    """
    queries = finding_queries_of(qwen)
    if queries is None:
        raise CtscribeError(
            "E_NO_QUERIES",
            "the model must have finding queries to be sure of anything, but it has none",
        )
    rows = []
    for visual in visuals:
        assert visual.visual_tokens is not None  # a store gives nothing else
        tokens = project_features(qwen, visual.visual_tokens.to(queries.gate.device))
        located = locate_findings(queries.head, tokens, visual.grid_thw)
        rows.append(located.logits.double().cpu().numpy())
    return np.array(rows).reshape(-1, len(FINDINGS))


def label_cues(visual: VisualSource) -> VisualSource:
    """Adds the labels of the study that is shown as its cue (`known_labels`); noise gets none."""

    def with_cue(study: StudyRow, noise_seed: int | None = None) -> Visual:
        cue = None if noise_seed is not None else cue_of(known_labels(study))
        return replace(visual(study, noise_seed), cue=cue)

    return with_cue
