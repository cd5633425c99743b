"""What the library's whole processor of an export makes of frames and of what is said of them.

In, on standard input: the export's folder, a chat, and per scan a file of frames and the fields
that vLLM makes a video's metadata of. Out: ids and grid of each. It runs where torchvision is.
"""

import json
import sys

import numpy as np
import torch

from tests.transformers_server import put_up_with_torchvision


def main() -> None:
    """Answers for all scans."""
    asked = json.load(sys.stdin)
    _kept = put_up_with_torchvision()
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(asked["export"])
    prompt = processor.apply_chat_template(
        asked["chat"], tokenize=False, add_generation_prompt=True
    )
    answers = []
    for path, video in asked["scans"]:
        facts = {name: video[name] for name in ("fps", "frames_indices", "total_num_frames")}
        read = processor(
            text=[prompt],
            videos=[torch.from_numpy(np.load(path)).permute(0, 3, 1, 2)],
            video_metadata=[VideoMetadata(**facts)],
            do_sample_frames=False,
            return_tensors="pt",
        )
        answers.append([read["input_ids"][0].tolist(), read["video_grid_thw"][0].tolist()])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
