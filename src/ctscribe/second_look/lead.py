"""The weights that lead a second look, and what they make of one volume."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.errors import CtscribeError
from ctscribe.model.checkpoint import load_model
from ctscribe.model.findings_head import FindingsHead
from ctscribe.model.qwen import PATCH_PX, encode_frames
from ctscribe.model.slice_attention import attached, look, warmed_head
from ctscribe.second_look.choose import choose_crops
from ctscribe.second_look.cut import ShownFrames, with_crops
from ctscribe.slices.show import FullFrames
from ctscribe.types import Affine


@final
@dataclass(frozen=True)
class Leader:
    """A tower and the finding queries that read its visual tokens."""

    qwen: Qwen2_5_VLForConditionalGeneration
    head: FindingsHead


def load_leader(weights_dir: Path, dtype: Literal["float32", "bfloat16"]) -> Leader:
    """Reads the weights that lead, onto the GPU where there is one.

    Args:
        weights_dir: A warm-up's checkpoint, or the best weights of a run with finding queries.
        dtype: Of the tower.

    Raises:
        CtscribeError: ``E_NO_QUERIES``, ``E_WEIGHTS``.
    """
    qwen, _ = load_model(weights_dir, dtype)
    qwen.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    queries = attached(qwen)
    if queries is not None:
        return Leader(qwen, queries.head)
    state = warmed_head(weights_dir)
    if state is None:
        raise CtscribeError(
            "E_NO_QUERIES",
            f"a second look must be led by finding queries, but {weights_dir} has none; give a "
            "warm-up's checkpoint or the best weights of a run with model.slice_attention",
        )
    head = FindingsHead(qwen.config.text_config.hidden_size)
    head.load_state_dict(state)
    return Leader(qwen, head.to(qwen.lm_head.weight.device))


@torch.inference_mode()
def look_again(
    leader: Leader, first: ShownFrames, fine: tuple[FullFrames, Affine], count: int
) -> ShownFrames:
    """Puts crops behind a volume's whole slices, where the leader sees small findings.

    The volume is encoded alone, so that its crops are the same whatever else is prepared.

    Args:
        leader: Chooses.
        first: Whole slices alone.
        fine: The same slices at full resolution, and their 4 × 4 matrix.
        count: Crops wanted.
    """
    slices, height, width, _ = first.frames.shape
    full, fine_to_ras = fine
    tokens = encode_frames(leader.qwen, [torch.from_numpy(np.array(first.frames))])
    seen = look(leader.head, tokens, (slices // 2, height // PATCH_PX, width // PATCH_PX))
    crops = choose_crops(
        seen.maps.double().cpu().numpy(),
        seen.logits.double().sigmoid().cpu().numpy(),
        (height, width),
        (full.shape[1], full.shape[2]),
        np.linalg.inv(fine_to_ras) @ first.frame_to_ras,
        count,
    )
    return with_crops(first, fine, crops)
