"""The whole card on a random model and on one whose tower sees nothing."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.rows import PredictionRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.measure.card import make_card, measure_gap
from ctscribe.measure.card_views import FROM_VOLUMES, GATED, KEPT, VIEWS
from ctscribe.scan.volume import CTVolume
from ctscribe.show.card import write_card
from ctscribe.write.writer import ReportWriter
from tests.measure.small import RECIPE, STUDIES
from tests.scans import image_of
from tests.studies import random_frames, write_prepared


@pytest.fixture(scope="module")
def blind(make_run: Callable[[bool], Path]) -> ReportWriter:
    return ReportWriter(make_run(True))


def test_a_model_that_ignores_the_image_has_gap_and_dependence_0(
    blind: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    card = make_card(blind, prepared, "test", tmp_path, progress=lambda *at: told.append(at))
    assert told[-1] == (48, 48)
    assert told == sorted(told)
    assert card["not_shown"] == [view for view in GATED if view in FROM_VOLUMES]
    assert card["verdict"] == "too few"
    for view in set(VIEWS) - {"real", *FROM_VOLUMES}:
        gap = card["views"][view]["ce_gap"]
        assert gap == {"value": 0, "low": 0, "high": 0}, view
        assert card["views"][view]["dependence"]["value"] == 0
    assert card["dependence"]["low"] == card["dependence"]["high"] == 0
    assert measure_gap(blind, prepared)["value"] == 0

    assert read_json(tmp_path / "card.json") == card
    write_card(tmp_path, card)
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert "Too few patients for a verdict: 2 have a finding, and 40 are needed." in page
    assert "The verdict is weaker" in page


def test_with_volumes_all_views_are_shown(
    blind: ReportWriter, make_chest: Callable[..., CTVolume], tmp_path: Path
) -> None:
    frames = random_frames(len(STUDIES), (6, 56, 56, 3))
    prepared = write_prepared(tmp_path / "prepared", STUDIES, RECIPE, frames=frames)
    (prepared.folder / "preprocessed").mkdir()
    for study in STUDIES:
        nib.save(image_of(make_chest()), prepared.folder / "preprocessed" / study.volume_name)
    card = make_card(blind, prepared, "test", tmp_path / "card")
    assert [*card["views"]] == [*VIEWS]
    assert card["not_shown"] == []
    assert len(read_rows(tmp_path / "card" / f"reports_{KEPT}.jsonl", PredictionRow)) == 4


def test_an_interrupted_card_goes_on_and_a_finished_one_stays(
    blind: ReportWriter, prepared: Prepared, tmp_path: Path
) -> None:
    first = make_card(blind, prepared, "test", tmp_path)
    path = tmp_path / "reports_blank.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert make_card(blind, prepared, "test", tmp_path) == first
    assert len(read_rows(path, PredictionRow)) == 4
    assert path.read_text(encoding="utf-8") == whole


def test_a_card_of_other_frames_leaves_its_folder_free(blind: ReportWriter, tmp_path: Path) -> None:
    slices = RECIPE.slices.model_copy(update={"windows": "three"})
    other = RECIPE.model_copy(update={"slices": slices})
    prepared = write_prepared(tmp_path / "prepared", STUDIES, other)
    with pytest.raises(CtscribeError, match=r"slices\.windows.*E_PREPARED"):
        make_card(blind, prepared, "test", tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_another_models_card_is_refused(
    blind: ReportWriter,
    make_run: Callable[[bool], Path],
    prepared: Prepared,
    tmp_path: Path,
) -> None:
    make_card(blind, prepared, "test", tmp_path)
    seeing = ReportWriter(make_run(False))
    with pytest.raises(CtscribeError, match=r"the weights.*E_RUN_EXISTS"):
        make_card(seeing, prepared, "test", tmp_path)
    gap = measure_gap(seeing, prepared)
    assert gap["value"] != 0
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert gap["value"] == pytest.approx(
        sum(scan["other_ce"] - scan["own_ce"] for scan in gap["scans"]) / 4
    )


def test_one_patient_is_not_enough(blind: ReportWriter, tmp_path: Path) -> None:
    alone = write_prepared(tmp_path, STUDIES[:1], RECIPE)
    with pytest.raises(CtscribeError, match="E_EMPTY_SPLIT"):
        measure_gap(blind, alone)
