"""Readers of files that do not look fail the gate; those that look pass, each by how much."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.card_readers import draw_scans, make_readers, write_answers
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.card_files import find_view_files, make_card_of_files
from ctscribe.measure.card_scores import require_dependence
from ctscribe.measure.card_views import KEPT
from ctscribe.measure.references import prepared_references
from tests.refusals import refusal

Card = dict[str, Any]
pytestmark = pytest.mark.long
NUM_TRAIN, NUM_TEST = 80, 54
CONFIG = EvaluateConfig(resamples=500)
BLIND = (
    *("constant", "header", "field of view", "noise level", "histogram", "file size"),
    *("file order", "file name", "age and sex", "list of files"),
)


@pytest.fixture(scope="module")
def card_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Card]:
    """The card of a reader, by its name."""
    out = tmp_path_factory.mktemp("readers")
    prepared = draw_scans(out, NUM_TRAIN, NUM_TEST)
    readers = make_readers(prepared, out / "altered")
    assert {*readers} == {*BLIND, "one slice", "all slices"}
    references = prepared_references(prepared, "test")

    def make(name: str) -> Card:
        folder: Path = out / name
        write_answers(readers[name], prepared, out / "altered", folder)
        return make_card_of_files(find_view_files(folder), references, CONFIG, folder / "card")

    return make


@pytest.mark.parametrize("name", BLIND)
def test_who_does_not_look_fails(card_of: Callable[[str], Card], name: str) -> None:
    card = card_of(name)
    assert card["verdict"] == "open"
    assert card["dependence"]["value"] < 0.05
    with refusal("E_DEPENDENCE", "must be above 0"):
        require_dependence(card, 0.0)
    if name in ("header", "field of view"):  # as this was passed before
        assert card["views"]["other_patient"]["dependence"]["low"] > 0.8
        assert card["views"]["other_on_own_grid"]["dependence"]["value"] == 0


def test_who_looks_passes_and_who_sees_more_depends_more(
    card_of: Callable[[str], Card],
) -> None:
    one, every = card_of("one slice"), card_of("all slices")
    for card in (one, every):
        assert card["verdict"] == "looks"
        require_dependence(card, 0.01)
        assert card["views"][KEPT]["label_agreement"]["low"] > 0.7
    assert one["dependence"]["value"] < every["dependence"]["value"]
    assert one["dependence"]["high"] < 0.5
    require_dependence(every, 0.1)
