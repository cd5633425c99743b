"""What `ctscribe env` tells of a machine, and what it does not."""

import getpass
import json
import platform
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from ctscribe.base.about import __version__
from ctscribe.cli.app import app
from ctscribe.cli.environment import environment


def test_versions_memory_and_devices_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    app(("env", "--json"), result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert found["ctscribe"] == __version__
    assert found["python"].endswith(platform.python_version())
    assert found["packages"]["torch"] == version("torch")
    assert 0 < found["memory_gib"]["available"] <= found["memory_gib"]["machine"]
    app(("env",), result_action="return_value")
    told = capsys.readouterr().out
    assert f"torch {version('torch')}" in told
    assert len(told.splitlines()) == len(found) + 1


def test_no_path_and_nobodys_name_is_told() -> None:
    told = json.dumps(environment())
    for name in (getpass.getuser(), socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert f'"{name}' not in told
    assert "/" not in told
