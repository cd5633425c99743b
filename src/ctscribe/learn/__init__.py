"""From prepared studies to a trained run.

In: a prepared folder and a recipe. Out: ``pairs.jsonl`` (`pairs`), a starting checkpoint
(`warm_up`), a run with its best weights (`train`). `model` has the models, `objective` the loss of
training, `reward` the reward of reinforcement. Begin with `objective`, then `train.stage`.
"""
