"""Slurm through submitit: job arrays, in which each job does a share of the tasks."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ctscribe.base.errors import CtscribeError
from ctscribe.data.engines.engine import Result, Task, import_extra

_MOST_JOBS = 1000
"""Jobs in one array; Slurm's default MaxArraySize is 1001."""
_SHARES_PER_PROCESS = 4
_MINUTES_PER_TASK = 1
_MINUTES_AT_LEAST = 30
_POLL_S = {"slurm": 10.0, "local": 0.2}


def work(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int | None,
    *,
    lost: Callable[[Task], Result],
    need_bytes: Callable[[Task], int],
    folder: Path,
    cluster: Literal["slurm", "local"] = "slurm",
) -> Iterator[Result]:
    """See `Engine`; `processes` jobs run at once, each on one core.

    Partition, account and time limit come from sbatch's environment variables, such as
    ``SBATCH_PARTITION``. When a job dies, its tasks are repeated one per job, so that only those
    that end their job again are lost. If the driver is killed, its jobs still run to their end.

    ``folder`` holds submitit's files, on storage that all machines share; it is removed if every
    job succeeded, and kept with the jobs' logs otherwise. The cluster ``local`` runs the jobs on
    this machine.
    """
    submitit = import_extra("submitit", "slurm")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise CtscribeError(
            "E_ENGINE", "the engine slurm must find sbatch, but it is not on the path"
        )
    executor = submitit.AutoExecutor(folder / "%j", cluster=cluster)
    executor.update_parameters(
        name="ctscribe", cpus_per_task=1, mem_gb=max(map(need_bytes, tasks), default=0) / 1e9
    )
    if processes and cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=processes)
    dead: list[Task] = []
    for share, results in _run(executor, function, _shares(tasks, processes), _POLL_S[cluster]):
        if results is None:
            dead += share
        else:
            yield from results
    alone = [(task,) for task in dead]
    for share, results in _run(executor, function, alone, _POLL_S[cluster]):
        yield from map(lost, share) if results is None else results
    if not dead:
        shutil.rmtree(folder, ignore_errors=True)


def _shares(tasks: Sequence[Task], processes: int | None) -> list[tuple[Task, ...]]:
    """Deals tasks out: a few shares for each job that runs at once, at most one array's worth."""
    wanted = _SHARES_PER_PROCESS * processes if processes else _MOST_JOBS
    count = min(wanted, _MOST_JOBS, len(tasks))
    return [tuple(tasks[start::count]) for start in range(count)]


def _run(
    executor: Any,  # noqa: ANN401 - submitit's, imported where it is needed
    function: Callable[[Task], Result],
    shares: Sequence[tuple[Task, ...]],
    poll_s: float,
) -> Iterator[tuple[tuple[Task, ...], list[Result] | None]]:
    """Yields each share when its job ends, with its results, or with None if the job died."""
    submitit = import_extra("submitit", "slurm")
    for start in range(0, len(shares), _MOST_JOBS):
        array = shares[start : start + _MOST_JOBS]
        minutes = max(_MINUTES_AT_LEAST, _MINUTES_PER_TASK * max(map(len, array)))
        executor.update_parameters(timeout_min=minutes)
        jobs = executor.map_array(partial(_each, function), array)
        share_of = {job.job_id: share for job, share in zip(jobs, array, strict=True)}
        try:
            for job in submitit.helpers.as_completed(jobs, poll_frequency=poll_s):
                try:
                    results = job.result()
                except submitit.core.utils.FailedJobError:
                    raise
                except submitit.core.utils.UncompletedJobError:
                    results = None
                if isinstance(results, CtscribeError):
                    raise results
                yield share_of.pop(job.job_id), results
        finally:
            for job in jobs:
                if job.job_id in share_of:
                    job.cancel(check=False)


def _each(
    function: Callable[[Task], Result], share: tuple[Task, ...]
) -> list[Result] | CtscribeError:
    """Does a job's share. Returns an error, because submitit would only pass on its text."""
    try:
        return [function(task) for task in share]
    except CtscribeError as error:
        return error
