"""Vision-language models as they are used here: patches, positions, losses, decoding, checkpoints.

In: frames, prompts, reports. Out: visual tokens, cross entropies, written answers, folders that
Hugging Face's tools read. What a family of models must answer stands in `backbone`, one file per
family answers it, and no other names one. Begin with `qwen`, then `tower` and `checkpoint`.
"""
