"""What every engine does, and how to choose one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, TypeVar, runtime_checkable

from ctscribe.base.errors import CtscribeError

Task = TypeVar("Task")
Result = TypeVar("Result")
EngineName = Literal["local", "ray", "slurm"]


@runtime_checkable
class Engine(Protocol):
    """Calls one function per task, in processes that may die without harm to the others."""

    def __call__(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        processes: int | None,
        *,
        lost: Callable[[Task], Result],
        need_bytes: Callable[[Task], int],
    ) -> Iterator[Result]:
        """Yields each task's result as it is ready.

        Args:
            function: Importable by name. What it raises stops the whole run.
            tasks: Picklable.
            processes: At most so many tasks at once; None leaves it to the engine.
            lost: What to yield for a task whose process dies again when the task is repeated.
            need_bytes: Memory that a task takes.

        Raises:
            CtscribeError: ``E_ENGINE`` when the engine is not there, or what `function` raises.
        """
        ...


def choose_engine(name: EngineName, folder: Path) -> Engine:
    """Imports the engine of that name.

    In ``folder``, on storage that their machines share, Slurm's jobs keep what they exchange.
    """
    work = import_module(f"ctscribe.data.engines.{name}").work
    engine: Engine = partial(work, folder=folder) if name == "slurm" else work
    return engine


def import_extra(package: str, extra: EngineName) -> ModuleType:
    """Imports an optional dependency.

    Raises:
        CtscribeError: ``E_ENGINE`` with what to install.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise CtscribeError(
            "E_ENGINE",
            f"the engine {extra} must have {package} (pip install 'ctscribe[{extra}]'), but it "
            "is not installed",
        ) from error
