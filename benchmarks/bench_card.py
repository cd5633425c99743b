"""Whom the dependence card lets pass: readers of phantoms that look, and readers that do not.

``make bench NAME=card`` draws phantoms, writes all views of them, lets every reader write of every
file and makes its card; ``ARGS=--page`` makes the page alone, of ``results/card.json``.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.card_readers import (
    LIKE_HIM,
    ONE_SLICE_AT,
    VISIBLE,
    draw_scans,
    make_readers,
    write_answers,
)
from benchmarks.harness import RESULTS, ROOT, cores, interval, record, table, write_page
from ctscribe.base.files import read_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.card_compare import compare_cards
from ctscribe.measure.card_files import find_view_files, read_views
from ctscribe.measure.card_views import GATED, KEPT
from ctscribe.measure.references import prepared_references
from ctscribe.show.card import VIEW_TITLES
from ctscribe.show.cards import VERDICTS

NUM_TRAIN, NUM_TEST = 200, 150
WHAT_IT_READS = {
    "constant": "nothing; states the commonest findings",
    "header": "shape and voxel size: the nearest test scan's report",
    "field of view": "width, height and length in mm, likewise",
    "noise level": "second differences in even tissue, likewise",
    "histogram": "the histogram of the voxels, likewise",
    "file size": "the size of the compressed file, likewise",
    "file order": "the file's place in its folder: that test scan's report",
    "file name": "the file's name, likewise",
    "age and sex": f"age and sex: what most of {LIKE_HIM} like patients have",
    "list of files": "a hash of the voxels: that test scan's report, else the constant",
    "one slice": f"averages over blocks of the slice at {ONE_SLICE_AT:.0%} of the height",
    "all slices": "averages over blocks of the volume",
}
"""Reader → what it goes by."""


def measure(out: Path) -> dict[str, Any]:
    prepared = draw_scans(out, NUM_TRAIN, NUM_TEST, cores())
    readers, references = (
        make_readers(prepared, out / "altered"),
        prepared_references(prepared, "test"),
    )
    written = {}
    for name, reader in readers.items():
        write_answers(reader, prepared, out / "altered", out / name)
        truth, written[name] = read_views(find_view_files(out / name), references)
    training = sum(study.split != "test" for study in prepared.studies)
    return {"training_scans": training, **compare_cards(written, truth, EvaluateConfig())}


def page(raw: dict[str, Any]) -> dict[str, Any]:
    systems, others = raw["systems"], [view for view in GATED if view != KEPT]
    verdicts = [
        (
            *(name, WHAT_IT_READS[name], VERDICTS[card["verdict"]]),
            interval(card["dependence"]),
            VIEW_TITLES[card["dependence"]["against"]],
            interval(card["views"][KEPT]["label_agreement"]),
        )
        for name, card in systems.items()
    ]
    views = [
        (name, *(f"{card['views'][view]['dependence']['value']:.2f}" for view in (*others, KEPT)))
        for name, card in systems.items()
    ]
    columns = ("reader", "goes by", "verdict", "dependence", "least when shown", "agreement")
    return {
        "n": next(iter(systems.values()))["n"],
        "training_scans": raw["training_scans"],
        "visible": ", ".join(VISIBLE),
        "verdicts": table(columns, verdicts),
        "views": table(("reader", *(VIEW_TITLES[view] for view in (*others, KEPT))), views),
    }


if __name__ == "__main__":
    if "--page" not in sys.argv:
        record("card", measure(ROOT / "runs" / "bench-card"))
    write_page("card", page(read_json(RESULTS / "card.json")))
