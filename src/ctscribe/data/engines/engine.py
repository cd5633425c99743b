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
    """Calls a function on each task, in processes that may die without affecting the others."""

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
            function: Importable by name. An exception that it raises stops the whole run.
            tasks: Picklable.
            processes: Most tasks at the same time; None leaves it to the engine.
            lost: Returns the result of a task that ended its process again when it was repeated.
            need_bytes: Returns the memory that a task takes.

        Raises:
            CtscribeError: ``E_ENGINE`` when the engine is not available, or what ``function``
                raises.
        """
        ...


def choose_engine(name: EngineName, folder: Path) -> Engine:
    """Imports the engine of that name.

    Slurm's jobs exchange files in ``folder``, which must be on storage that all machines share.
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
