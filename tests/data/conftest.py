"""What is prepared."""

from pathlib import Path

import pytest

from ctscribe.data.ct_rate import CtRateTree
from tests.data.tree import write_tree


@pytest.fixture
def tree(tmp_path: Path) -> CtRateTree:
    return write_tree(tmp_path / "data")
