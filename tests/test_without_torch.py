"""What any model wrote can be scored and shown where there is no torch."""

import subprocess
import sys
from importlib.util import find_spec
from pkgutil import iter_modules

import pytest

import ctscribe.show

SCORING = (
    *("scores", "compare", "references", "classifier"),
    *("card_compare", "card_files", "card_scores", "card_views", "card_volumes"),
    *("grounding", "radeval", "ranking"),
)
SHOWN = [module.name for module in iter_modules(ctscribe.show.__path__, "ctscribe.show.")]
if find_spec("highdicom") is None:
    SHOWN.remove("ctscribe.show.dicom_sr")


@pytest.mark.parametrize("module", [*(f"ctscribe.measure.{name}" for name in SCORING), *SHOWN])
def test_no_module_imports_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
