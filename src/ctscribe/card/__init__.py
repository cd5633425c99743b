"""The image-dependence card: what a model says when it is shown something else."""
