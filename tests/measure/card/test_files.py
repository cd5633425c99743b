"""Cards of any model's reports."""

from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import EvaluateConfig, PairsConfig
from ctscribe.base.rows import StudyRow
from ctscribe.measure.card_files import find_view_files, make_card_of_files
from ctscribe.measure.references import References, prepared_references
from ctscribe.show.card import write_card

CONFIG = EvaluateConfig(resamples=100)


def given(prepared: Path) -> References:
    return prepared_references(prepared, "test", PairsConfig().validation_fraction)


def write(folder: Path, view: str, studies: list[StudyRow], shift: int = 0) -> None:
    """Each study's reference, or that of the study ``shift`` further on."""
    texts = [study.findings for study in studies[shift:] + studies[:shift]]
    lines = [f'{study.volume_name},"{text}"' for study, text in zip(studies, texts, strict=True)]
    folder.mkdir(exist_ok=True)
    (folder / f"{view}.csv").write_text("VolumeName,report\n" + "\n".join(lines), encoding="utf-8")


def test_a_perfect_model_has_dependence_1_and_no_cross_entropy(
    prepared: Path, studies: list[StudyRow], tmp_path: Path
) -> None:
    write(tmp_path / "in", "real", studies)
    write(tmp_path / "in", "other_patient", studies, shift=1)
    paths = find_view_files(tmp_path / "in")
    assert list(paths) == ["real", "other_patient"]
    card = make_card_of_files(paths, given(prepared), CONFIG, tmp_path / "out")
    assert card["dependence"]["value"] == 1
    assert list(card["definitions"]["views"]) == ["real", "other_patient"]
    assert "cross_entropy" not in card["views"]["other_patient"]
    assert "cross_entropy" not in card["per_finding"][0]["views"]["real"]
    assert read_json(tmp_path / "out" / "card.json") == card
    write_card(tmp_path / "out", card)
    page = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert f"Reports `{card['predictions_sha256']['real'][:12]}`" in page
    assert (tmp_path / "out" / "card.png").read_bytes().startswith(b"\x89PNG")


def test_reciting_has_dependence_0(prepared: Path, studies: list[StudyRow], tmp_path: Path) -> None:
    recited = [study.model_copy(update={"findings": studies[1].findings}) for study in studies]
    for view in ("real", "other_patient"):
        write(tmp_path, view, recited)
    paths = find_view_files(tmp_path)
    card = make_card_of_files(paths, given(prepared), CONFIG, tmp_path / "out")
    # Right on half of the scans, whichever is shown: nothing is gained by the own.
    assert card["views"]["real"]["f1"]["value"] == pytest.approx(2 / 3)
    assert card["dependence"]["value"] == 0


def test_two_files_of_a_view_no_stranger_and_lacking_reports_are_refused(
    prepared: Path, studies: list[StudyRow], tmp_path: Path
) -> None:
    def make() -> None:
        paths = find_view_files(tmp_path)
        make_card_of_files(paths, given(prepared), CONFIG, tmp_path / "out")

    write(tmp_path, "real", studies)
    with pytest.raises(CtscribeError, match=r"there is no other_patient\.csv.*E_CARD"):
        make()
    write(tmp_path, "other_patient", studies[:3])
    with pytest.raises(CtscribeError, match=r"lacks 1 of 4, the first valid_3_a.*E_CARD"):
        make()
    (tmp_path / "real.json").write_text("{}")
    with pytest.raises(CtscribeError, match=r"real\.csv and real\.json.*E_CARD"):
        make()
