"""A study → its positive and its negative, as training items.

In: prepared training studies. Out: ``pairs.jsonl`` and its audit, then whole pairs as tensors.
Begin with `build` for what is written and `dataset` for what is read.
"""
