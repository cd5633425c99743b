"""Engines that run a function on many tasks: in local processes, on a Ray cluster, or by Slurm.

In: tasks and a function of one task. Out: results as they are ready, also for tasks whose worker
died. Begin with `engine`, then `local`.
"""
