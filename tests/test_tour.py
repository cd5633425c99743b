"""The tour runs from its first cell to its last."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUN = """
import json, sys
from tour import app

_, found = app.run()
print(json.dumps({
    "objects": [repr(found[name]) for name in ("scan", "writer", "draft", "scores")],
    "sentences": [row.text for row in found["draft"].sentences],
    "text": found["draft"].text,
    "updates": found["trained"]["num_steps"],
    "frames": found["frames"].shape,
    "told": found["told"],
    "scans": [row.scan_id for row in found["rows"]],
    "n": found["scores"].values["n"],
    "page": (found["folder"] / "draft.html").read_text(encoding="utf-8"),
}))
"""
MOST_SECONDS = 400
"""On two busy cores; idle ones take less than a minute."""


@pytest.mark.slow
def test_the_tour_ends_with_a_scored_report() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=DOCS,
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    for told, name in zip(
        found["objects"], ("CTVolume", "ReportWriter", "Draft", "Scores"), strict=True
    ):
        assert told.startswith(f"{name}(")
        assert "\n" not in told
    assert found["updates"] == 6
    assert found["frames"] == [10, 112, 112, 3]
    assert all(text in found["text"] for text in found["sentences"])
    assert set(found["told"].values()) <= {"present", "absent", "uncertain", "not mentioned"}
    assert len(found["scans"]) == found["n"]["scans"] == found["n"]["predicted"] >= 4
    assert found["n"]["training_scans"] >= 10
    assert "Research use only" in found["page"]
