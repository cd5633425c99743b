import sys
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.data.engines import local
from ctscribe.data.engines.engine import Engine, EngineName, choose_engine


def nothing(task: int) -> int:
    return task


def test_engines_by_name(tmp_path: Path) -> None:
    assert choose_engine("local", tmp_path) is local.work
    for name in ("local", "ray", "slurm"):
        engine = choose_engine(name, tmp_path)
        assert isinstance(engine, Engine)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_what_to_install(
    name: EngineName, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    engine = choose_engine(name, tmp_path)
    with pytest.raises(CtscribeError, match=rf"pip install 'ctscribe\[{name}\]'") as caught:
        list(engine(nothing, [1, 2], 2, lost=nothing, need_bytes=nothing))
    assert caught.value.code == "E_ENGINE"


def test_without_slurm_the_engine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = choose_engine("slurm", tmp_path)
    with pytest.raises(CtscribeError, match="must find sbatch, but it is not on the path"):
        list(engine(nothing, [1, 2], 2, lost=nothing, need_bytes=nothing))
