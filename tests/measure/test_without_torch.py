"""What any model wrote can be scored where there is no torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["scores", "compare", "card_files", "card_scores", "card_views", "references", "classifier"],
)
def test_scoring_files_imports_no_torch(module: str) -> None:
    code = f"import sys, ctscribe.measure.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
