"""From prepared studies to a trained run.

In: a prepared folder and a recipe. Out: ``pairs.jsonl`` (`pairs`), a starting checkpoint
(`warm_up`), a run with its best weights (`train`). `model` is the model as it is used here,
`objective` what training minimises, `reward` what reports earn in reinforcement. Begin with
`objective`, then `train.stage`.
"""
