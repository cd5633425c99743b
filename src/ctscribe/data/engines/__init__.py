"""Where volumes are worked on: this machine's processes, a Ray cluster, Slurm jobs.

In: tasks and a function of one task. Out: outcomes as they come, also of tasks whose worker died.
Begin with `engine`, then `local`.
"""
