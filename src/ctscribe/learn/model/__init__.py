"""Qwen2.5-VL as it is used here: patches, positions, losses, decoding, features, checkpoints.

In: frames, prompts, reports. Out: visual tokens, cross entropies, written answers, folders that
Hugging Face's tools read. Begin with `qwen`, then `tower` and `checkpoint`.
"""
