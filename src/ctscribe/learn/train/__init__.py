"""The training stage, two branches per step on the Trainer of transformers; reinforcement after it.

In: a recipe, pairs, a starting checkpoint. Out: checkpoints, metrics, the best weights; an
interrupted run goes on where it stopped. Begin with `stage`, then `trainer`; for
reinforcement with `policy`, then `reinforce`.
"""
