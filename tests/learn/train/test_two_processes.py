"""Two processes under torchrun see the pairs of one process, and end with its weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ctscribe.base.files import read_json
from ctscribe.base.rows import read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.learn.train.stage import train
from tests.learn.train.launch import torchrun
from tests.learn.train.runs import make_recipe


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU with CPU")
# 24 pairs in updates of 10, 10 and 4. The cap lies among the negatives, and only every second
# report has a disputed sentence, so that processes disagree on what to skip.
@pytest.mark.parametrize(
    ("strategy", "learning_rate", "objective"),
    [
        ("heter", 5e-4, {"beta": 0.2, "max_loss": 5.48}),
        (
            "hard",
            2e-4,
            {
                **{"name": "logistic", "scope": "disputed", "margin": 0.05, "beta": 0.2},
                **{"beta_schedule": "steered", "target_gap": 0.5},
            },
        ),
    ],
)
def test_two_processes_equal_one(
    tmp_path: Path,
    prepared: Prepared,
    start: Path,
    pairs_of: dict[str, Path],
    strategy: str,
    learning_rate: float,
    objective: dict[str, float | str],
) -> None:
    pairs = pairs_of[strategy]
    # AdamW turns the rounding of a gradient near zero into a step of the learning rate's size;
    # a gradient lost or sent twice would still show twenty times over.
    one, two = (
        make_recipe(
            strategy,
            objective=objective,
            train={"gradient_accumulation_steps": steps, "learning_rate": learning_rate},
        )
        for steps in (10, 5)
    )
    train(tmp_path / "one", prepared, pairs, one, start)
    torchrun(two, tmp_path / "two", prepared, pairs, start)
    asked = read_json(tmp_path / "two" / "run.json")["asked"]
    assert asked["pairs_per_update"] == 10  # 5 micro-batches of one pair on each of two processes
    rows = [read_rows(tmp_path / name / "metrics.jsonl", MetricsRow) for name in ("one", "two")]
    assert [row.step for row in rows[0]] == [row.step for row in rows[1]] == [1, 2, 3]
    assert any(0 < (row.share_capped or 0) < 1 for row in rows[0])
    assert any(0 < (row.share_skipped or 0) < 1 for row in rows[1])
    for single, double in zip(*rows, strict=True):
        values = [
            row.model_dump(exclude={"share_skipped"}, exclude_none=True) for row in (single, double)
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-4)
        assert (single.share_skipped or 0) >= (double.share_skipped or 0)
    first, second = (load_file(tmp_path / n / "best" / "model.safetensors") for n in ("one", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=1e-5, rtol=0)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        p.name for p in (tmp_path / "one").iterdir()
    )
