"""What benches and studies share: where results lie, cells that resume, patients left out, tables.

A bench writes ``results/<name>.json``. A study trains cells, an arm and a seed each; every cell
ends as ``results/<study>/<arm>-seed<n>.json``, so an interrupted study goes on where it stopped,
and ``docs/results/<study>.md`` is made anew from those files.
"""

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from ctscribe.base.files import read_json, write_json, write_text
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.runs import provenance
from ctscribe.base.types import Split
from ctscribe.base.workers import worker_pool
from ctscribe.data.prepare import prepare
from ctscribe.learn.warm_up import shipped_start
from ctscribe.measure.intervals import jackknife_interval
from ctscribe.measure.scans import ScanReport
from ctscribe.phantom.dataset import write_dataset
from ctscribe.show.tables import TOO_FEW, Table, to_markdown
from ctscribe.text.findings import FINDINGS

ROOT = Path(__file__).parents[1]
RESULTS, PAGES = ROOT / "results", ROOT / "docs" / "results"
SEEDS = (0, 1, 2)
SPLITS: tuple[Split, ...] = ("validation", "test")
"""Whose scans a cell answers for."""
Cell = dict[str, Any]
Cells = dict[str, list[Cell]]
"""Arm → its finished cells, by seed."""
Draws = Float64[np.ndarray, "draws"]
"""A score of all patients once, then without each one."""


def record(name: str, result: Mapping[str, Any]) -> None:
    """Writes a bench's result with versions, commit and machine, and prints it."""
    write_json(RESULTS / f"{name}.json", {**result, **provenance()})
    print(json.dumps(result, indent=2))


def report(
    name: str,
    measure: Callable[[Path], Mapping[str, Any]],
    page: Callable[[Any], Mapping[str, Any]],
) -> None:
    """Measures on the file that is named on the command line, then makes the page.

    Without a file the page alone is made anew, from the numbers that are there.
    """
    if len(sys.argv) > 1:
        record(name, measure(Path(sys.argv[1])))
    write_page(name, page(read_json(RESULTS / f"{name}.json")))


def labelled_reports(path: Path) -> list[ScanReport]:
    """Reports labelled by people: AccessionNo, report_text and the 18 findings of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        ScanReport(
            *(row["AccessionNo"], row["AccessionNo"], row["report_text"], ""),
            tuple(int(row[finding]) for finding in FINDINGS),
        )
        for row in rows
    ]


def page_text(name: str, told: Mapping[str, Any]) -> str:
    """The words of ``pages/<name>.md`` with what is told."""
    words = Path(__file__).with_name("pages") / f"{name}.md"
    return words.read_text(encoding="utf-8").format(**told)


def write_page(name: str, told: Mapping[str, Any]) -> None:
    """Writes ``docs/results/<name>.md``; see `page_text`."""
    write_text(PAGES / f"{name}.md", page_text(name, told))
    print(f"Written to {PAGES / name}.md")


@dataclass(frozen=True)
class Study:
    """Arms trained on phantoms with several seeds; ``cells`` are (arm, seed) in their order."""

    name: str
    cells: Sequence[tuple[str, int]]
    base: tuple[str, ...]
    """What it changes in the tiny recipe, its own patients among that."""

    def raw(self, arm: str, seed: int) -> Path:
        return RESULTS / self.name / f"{arm}-seed{seed}.json"

    def recipe(self, *changes: str) -> Recipe:
        return read_recipe("tiny", (*self.base, *changes))

    def missing(self) -> list[tuple[str, int]]:
        """Cells that have not ended."""
        return [cell for cell in self.cells if not self.raw(*cell).exists()]

    def ended(self) -> Cells:
        """The cells that have ended."""
        missing, found = set(self.missing()), Cells()
        for arm, seed in self.cells:
            if (arm, seed) not in missing:
                found.setdefault(arm, []).append(read_json(self.raw(arm, seed)))
        return found

    def finished(self) -> Cells:
        """All cells, for a page that is made when all have ended."""
        if missing := [self.raw(*cell).name for cell in self.missing()]:
            raise SystemExit(f"All cells must have ended, but {', '.join(missing)} have not.")
        return self.ended()


def run_study(
    study: Study,
    draw_data: Callable[[Path], None],
    run_cell: Callable[[Path, str, int], Cell],
    page: Callable[[Study], Mapping[str, Any]],
) -> None:
    """Runs the cells that are missing, one core each, then makes the page; --page that alone.

    Args:
        study: What is run.
        draw_data: Fills the folder that all cells read; called again after an interruption.
        run_cell: (folder, arm, seed) → what the cell's raw file keeps.
        page: What the page tells, from the raw files.
    """
    if "--page" not in sys.argv:
        out = ROOT / "runs" / f"study-{study.name}"
        draw_data(out)
        facts = RESULTS / study.name / "run.json"
        if not facts.exists():
            write_json(facts, {"recipe": study.recipe().model_dump(mode="json"), **provenance()})
        todo = study.missing()
        print(f"{len(todo)} of {len(study.cells)} cells are to be run", flush=True)
        with worker_pool(cores()) as pool:
            work = partial(_timed, study, run_cell, out)
            for done in as_completed([pool.submit(work, *cell) for cell in todo]):
                print(done.result(), flush=True)
    run = read_json(RESULTS / study.name / "run.json")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    made_with = f"ctscribe {run['ctscribe']} at {run['commit']}; {versions}"
    write_page(study.name, {"facts": run, "versions": made_with, **page(study)})


def _timed(
    study: Study, run_cell: Callable[[Path, str, int], Cell], out: Path, arm: str, seed: int
) -> str:
    torch.set_num_threads(1)
    began = time.process_time()
    found = run_cell(out, arm, seed)
    cpu_s = round(time.process_time() - began, 1)
    write_json(study.raw(arm, seed), {"arm": arm, "seed": seed, **found, "cpu_s": cpu_s})
    return f"{arm} seed {seed}: {cpu_s:.0f} CPU s"


def cores() -> int:
    """Those that this process may use, as ``taskset`` or the machine says."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def draw_phantoms(data: Path, prepared: Mapping[Path, Recipe]) -> None:
    """Draws a phantom data set and prepares its slices into each folder by that folder's recipe."""
    processes = cores()
    write_dataset(data, next(iter(prepared.values())).phantom, processes=processes)
    for folder, recipe in prepared.items():
        knobs = recipe.volume, recipe.slices, recipe.splits
        prepare(data, folder, *knobs, keep="slices", processes=processes)


def warm_start() -> Path:
    """The warm-up that comes with ctscribe."""
    start = shipped_start(read_recipe("tiny"))
    if start is None:
        raise SystemExit("The tiny recipe no longer fits starts/tiny; run `make start` first.")
    return start


def weights(patients: Int64[np.ndarray, "scans"]) -> Float64[np.ndarray, "draws scans"]:
    """Which scans count: all, then those of all patients but each one."""
    count = int(patients.max()) + 1
    draws = np.vstack([np.ones(count), 1 - np.eye(count)])
    return np.asarray(draws[:, patients])


def bounds(drawn: Draws) -> tuple[float, float, float]:
    """A score and its 95 % interval."""
    value = float(drawn[0])
    defined = np.isfinite(drawn).any() and np.isfinite(value)
    return value, *(jackknife_interval(value, drawn[1:]) if defined else (np.nan, np.nan))


def shown(drawn: Draws, form: str = ".3f") -> str:
    """The same as text."""
    value, low, high = bounds(drawn)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def direction(drawn: Draws) -> str:
    """Which way a difference points, where its interval leaves no doubt."""
    _, low, high = bounds(drawn)
    return "higher" if low > 0 else "lower" if high < 0 else "not different"


def interval(score: Mapping[str, Any], form: str = ".3f") -> str:
    """The same of a score that is kept as value, low and high, if it has an interval."""
    if score["low"] is None:
        return f"{score['value']:{form}} [{TOO_FEW}]"
    return f"{score['value']:{form}} [{score['low']:{form}}, {score['high']:{form}}]"


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest of a few seeds."""
    return f"{np.mean(values):.3f} ({min(values):.3f} – {max(values):.3f})"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table without a heading."""
    texts = tuple(tuple(map(str, row)) for row in rows)
    return to_markdown(Table("", tuple(columns), texts)).split("\n", 2)[2].rstrip("\n")
