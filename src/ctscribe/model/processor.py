"""What tells an inference engine how to prepare slices: Qwen2.5-VL's published settings."""

from typing import Any

from ctscribe.model.qwen import CLIP_MEAN, CLIP_STD, MERGE, PATCH_PX

_PIXELS: dict[str, Any] = {
    "min_pixels": 4 * (PATCH_PX * MERGE) ** 2,
    "max_pixels": 16384 * (PATCH_PX * MERGE) ** 2,
    "patch_size": PATCH_PX,
    "temporal_patch_size": 2,
    "merge_size": MERGE,
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def processor_documents(eos_token_ids: list[int], pad_token_id: int) -> dict[str, dict[str, Any]]:
    """Contents of the files that a published checkpoint has beside its weights.

    The pixel limits are wide enough that frames whose sides are multiples of 28 px are never
    scaled; sampling is off, as every number here is measured at temperature 0.

    Args:
        eos_token_ids: Tokens that end an answer.
        pad_token_id: The tokenizer's.
    """
    video = {key: value for key, value in _PIXELS.items() if key != "image_processor_type"}
    return {
        "preprocessor_config.json": _PIXELS,
        "video_preprocessor_config.json": {
            **video,
            "do_sample_frames": False,
            "video_processor_type": "Qwen2VLVideoProcessor",
        },
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": eos_token_ids,
            "pad_token_id": pad_token_id,
        },
    }
