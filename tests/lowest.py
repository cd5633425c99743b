"""``python -m tests.lowest``: pyproject's lower bounds, as a file of constraints for pip."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_AT_LEAST = re.compile(r"([\w.-]+)(?:\[[\w,]*\])?>=([\w.]+)")


def lowest() -> list[str]:
    """Every package that the project or one of its extras names, at its lower bound."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    named = [*project["dependencies"], *(each for extra in extras for each in extra)]
    return [_AT_LEAST.sub(r"\1==\2", each).partition(",")[0] for each in named]


if __name__ == "__main__":
    print("\n".join(lowest()))  # noqa: T201 - this is what it is for
