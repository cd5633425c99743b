"""Cards of any model's reports, and the altered volumes for it to read."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from isal import igzip

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.pairs.build import noise_seeds
from ctscribe.measure.card_files import find_view_files, make_card_of_files, write_altered
from ctscribe.measure.card_views import VIEWS, draw_dropped, draw_order
from ctscribe.measure.references import prepared_references
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.stores import nifti_header
from ctscribe.scan.types import Affine, VolumeHu
from ctscribe.show.card import write_card
from tests.measure.small import RECIPE, STUDIES
from tests.studies import write_prepared

CONFIG = EvaluateConfig(resamples=100)
SHAPE = (12, 10, 24)


def make(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """The card of the reports in a folder, into one below it."""
    given = prepared_references(prepared, "test")
    return make_card_of_files(find_view_files(folder), given, CONFIG, folder / "out")


def write(folder: Path, view: str, studies: list[StudyRow], shift: int = 0) -> None:
    """Each study's reference, or that of the study ``shift`` further on."""
    texts = [study.findings for study in studies[shift:] + studies[:shift]]
    lines = [f'{study.volume_name},"{text}"' for study, text in zip(studies, texts, strict=True)]
    folder.mkdir(exist_ok=True)
    (folder / f"{view}.csv").write_text("VolumeName,report\n" + "\n".join(lines), encoding="utf-8")


def test_a_perfect_model_has_dependence_1_and_no_cross_entropy(
    prepared: Prepared, tmp_path: Path
) -> None:
    write(tmp_path, "real", STUDIES)
    write(tmp_path, "other_patient", STUDIES, shift=1)
    assert list(find_view_files(tmp_path)) == ["real", "other_patient"]
    card = make(prepared, tmp_path)
    assert card["dependence"]["value"] == 1
    assert list(card["definitions"]["views"]) == ["real", "other_patient"]
    assert "cross_entropy" not in card["views"]["other_patient"]
    assert "cross_entropy" not in card["per_finding"][0]["views"]["real"]
    assert read_json(tmp_path / "out" / "card.json") == card
    write_card(tmp_path / "out", card)
    page = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert f"Reports `{card['predictions_sha256']['real'][:12]}`" in page
    assert (tmp_path / "out" / "card.png").read_bytes().startswith(b"\x89PNG")


def test_reciting_has_dependence_0(prepared: Prepared, tmp_path: Path) -> None:
    recited = [study.model_copy(update={"findings": STUDIES[1].findings}) for study in STUDIES]
    for view in ("real", "other_patient"):
        write(tmp_path, view, recited)
    card = make(prepared, tmp_path)
    # Right on half of the scans, whichever is shown: nothing is gained by the own.
    assert card["views"]["real"]["f1"]["value"] == pytest.approx(2 / 3)
    assert card["dependence"]["value"] == 0


def test_two_files_of_a_view_no_stranger_and_lacking_reports_are_refused(
    prepared: Prepared, tmp_path: Path
) -> None:
    write(tmp_path, "real", STUDIES)
    with pytest.raises(CtscribeError, match=r"there is no other_patient\.csv.*E_CARD"):
        make(prepared, tmp_path)
    write(tmp_path, "other_patient", STUDIES[:3])
    with pytest.raises(CtscribeError, match=r"lacks 1 of 4, the first valid_3_a.*E_CARD"):
        make(prepared, tmp_path)
    (tmp_path / "real.json").write_text("{}")
    with pytest.raises(CtscribeError, match=r"real\.csv and real\.json.*E_CARD"):
        make(prepared, tmp_path)


def affine(number: int) -> Affine:
    matrix = np.diag([3.0, 3.0, 3.0, 1.0])
    matrix[:3, 3] = (5.0, -7.0, float(number))
    return matrix


@pytest.fixture
def volumes(tmp_path: Path) -> list[VolumeHu]:
    """A prepared folder with small volumes; returned are their voxels."""
    draw = np.random.default_rng(0)
    made = []
    for number, study in enumerate(STUDIES):
        hu = draw.integers(-1000, 400, SHAPE).astype(np.int16)
        path = tmp_path / "prepared" / "preprocessed" / study.volume_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with igzip.open(path, "wb") as file:
            file.write(nifti_header(SHAPE, affine(number)))
            file.write(np.ascontiguousarray(hu.T).data)
        made.append(hu)
    write_prepared(tmp_path / "prepared", STUDIES, RECIPE)
    return made


def test_every_view_is_what_it_says(volumes: list[VolumeHu], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    number = write_altered(
        Prepared(tmp_path / "prepared"), "test", out, progress=lambda *at: told.append(at)
    )
    assert number == 4
    assert told[-1] == (4 * len(VIEWS), 4 * len(VIEWS))
    assert told == sorted(told)
    for own, study in zip(volumes, STUDIES, strict=True):
        name, seed = study.volume_name, noise_seeds([study.volume_name], seed=0)[0]
        images = {view: nib.load(out / view / name) for view in VIEWS}
        shown = {view: np.asarray(image.dataobj) for view, image in images.items()}
        assert np.array_equal(shown["real"], own)
        assert np.array_equal(shown["shuffled"], own[:, :, draw_order(24, seed)])
        gone = draw_dropped(24, 0.5, seed)
        assert (shown["dropped"][:, :, gone] == AIR_HU).all()
        assert np.array_equal(shown["dropped"][:, :, ~gone], own[:, :, ~gone])
        assert any(np.array_equal(shown["other_patient"], hu) for hu in volumes)
        assert not np.array_equal(shown["other_patient"], own)
        assert (shown["blank"] == AIR_HU).all()
        noise = shown["noise"]
        # About a third of a standard normal lies beyond one standard deviation.
        assert 0.25 < (abs(noise) == 1000).mean() < 0.4
        for view in ("noise", "blank", "shuffled", "dropped"):
            assert np.array_equal(images[view].affine, images["real"].affine)


def test_files_that_are_there_stay_and_other_scans_are_refused(
    volumes: list[VolumeHu], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_altered(Prepared(tmp_path / "prepared"), "test", out)
    kept = out / "noise" / STUDIES[0].volume_name
    before = kept.stat().st_mtime_ns
    (out / "blank" / STUDIES[0].volume_name).unlink()
    write_altered(Prepared(tmp_path / "prepared"), "test", out)
    assert kept.stat().st_mtime_ns == before
    assert (out / "blank" / STUDIES[0].volume_name).exists()
    write_prepared(tmp_path / "prepared", STUDIES[:3], RECIPE)
    with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
        write_altered(Prepared(tmp_path / "prepared"), "test", out)


def test_volumes_that_were_not_kept_are_asked_for(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match=r"--keep all.*E_MISSING"):
        write_altered(prepared, "test", tmp_path / "out")
    assert not (tmp_path / "out").exists()
