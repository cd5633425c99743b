import json
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import PairRow, StudyRow, write_rows
from ctscribe.learn.pairs.audit import audit_pairs, write_audit
from ctscribe.learn.pairs.build import build_pairs
from tests.studies import study_row, write_prepared


def pair(study: str, shown: str, distance: int, relaxed_by: int = 0) -> list[PairRow]:
    return [
        PairRow(study=study, role="positive", volume=study),
        PairRow(
            study=study,
            role="negative",
            volume=shown,
            label_distance=distance,
            relaxed_by=relaxed_by,
        ),
    ]


def test_counts_by_hand() -> None:
    studies = [
        study_row("a", labels=(0,) * 18, manufacturer="X"),
        study_row("b", labels=(1,) * 12 + (0,) * 6, manufacturer="X"),
        study_row("c", labels=(1,) * 2 + (0,) * 16, manufacturer="Y"),
        study_row("d", labels=(0,) * 18, manufacturer="Y"),
    ]
    rows = pair("a", "b", 12) + pair("b", "a", 12) + pair("c", "b", 10) + pair("d", "b", 12, 1)
    audit = audit_pairs(studies, rows)
    assert audit["num_positives"] == audit["num_negatives"] == 4
    assert audit["label_distance"] == {"10": 1, "12": 3}
    assert audit["share_relaxed"] == 0.25
    assert audit["reuse"] == {
        "volumes_used": 2,
        "most_often": 3,
        "share_of_top_5_percent": 0.75,
        "volumes_by_times_used": {"1": 1, "3": 1},
    }
    assert audit["direction"] == {"sicker": 0.75, "healthier": 0.25, "equal": 0.0}
    assert audit["scanner"] == {"matched": 0.5, "by_chance": 0.5}
    told = " ".join(audit["warnings"])
    assert "75% of the volumes shown instead have more findings" in told
    assert "5 % of the volumes give 75% of the negatives" in told
    assert "for 25% of the studies nobody differed enough" in told
    assert "manufacturer" not in told


def test_scanner_and_healthier_skews_are_told() -> None:
    ill, well = (1,) * 12 + (0,) * 6, (0,) * 18
    studies = [study_row(f"ill{n}", labels=ill, manufacturer="XY"[n % 2]) for n in range(10)]
    studies += [study_row(f"well{n}", labels=well, manufacturer="XY"[n % 2]) for n in range(10)]
    rows = [row for n in range(10) for row in pair(f"ill{n}", f"well{n}", 12)]
    told = audit_pairs(studies, rows)["warnings"]
    assert any("100% of the volumes shown instead have fewer findings" in line for line in told)
    assert any("100% of the pairs come from one manufacturer" in line for line in told)


def test_noise_has_no_partner_to_audit(cohort: list[StudyRow]) -> None:
    audit = audit_pairs(cohort, build_pairs(cohort, PairsConfig(strategy="gauss")))
    assert audit["num_noise"] == audit["num_negatives"] == len(cohort)
    assert audit["reuse"] is audit["direction"] is audit["label_distance"] is None
    assert audit["warnings"] == []


def test_each_finding_counts_the_pairs_that_dispute_it() -> None:
    studies = [study_row("a", labels=(0,) * 18), study_row("b", labels=(1, 1) + (0,) * 16)]
    studies += [study_row("c", labels=(1,) + (0,) * 17)]
    rows = build_pairs(studies, PairsConfig(strategy="heter", min_label_distance=1))
    disputed = Counter(finding for row in rows for finding in row.disputed or ())
    assert audit_pairs(studies, rows)["disputed"] == disputed
    assert 3 <= disputed.total() <= 5


@pytest.mark.parametrize("strategy", ["origin", "gauss", "heter"])
def test_files_are_written_for_every_strategy(
    tmp_path: Path, cohort: list[StudyRow], strategy: Literal["origin", "gauss", "heter"]
) -> None:
    cohort = cohort[:20]
    frames = [np.zeros((4, 28, 28, 3), np.uint8)] * 20
    prepared = write_prepared(tmp_path, cohort, frames=frames)
    out = tmp_path / strategy
    write_rows(out / "pairs.jsonl", build_pairs(cohort, PairsConfig(strategy=strategy)))
    warnings = write_audit(prepared, out)
    assert json.loads((out / "pairs_audit.json").read_text())["warnings"] == warnings
    assert (out / "pairs_examples.png").exists() == (strategy == "heter")
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > picture.height > 100
