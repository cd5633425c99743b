"""A run that reads another encoder's features: it learns, goes on, is read back, is not mixed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import write_rows
from ctscribe.cli.serve import serve
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.decoding import visual_tokens_of
from ctscribe.learn.model.encoder_tables import import_tables
from ctscribe.learn.model.feature_store import find_encoder
from ctscribe.learn.model.projector import ENCODER_FILE, PROJECTOR_FILE, Encoder, attach_projector
from ctscribe.learn.model.publish import publish
from ctscribe.learn.model.qwen3_vl import QWEN3_VL
from ctscribe.learn.pairs.build import build_pairs
from ctscribe.learn.train.stage import read_by_encoder, train
from ctscribe.learn.warm_up import warm_up
from ctscribe.measure.card import make_card
from ctscribe.measure.tune import tune
from ctscribe.write.evidence import log_probs
from ctscribe.write.find_evidence import find_evidence
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.encoders import WIDTH, write_encoded
from tests.learn.train.runs import assert_equal_runs, make_recipe, metrics
from tests.models import tiny_of
from tests.refusals import refusal

ALONE = {"slice_attention": False, "cues": False}


def recipe_of(strategy: str = "heter", **sections: dict[str, Any]) -> Recipe:
    told = {"slice_attention": True, "cues": True}
    model = {"encoder": "random-3d", **told, **sections.pop("model", {})}
    changes: dict[str, Any] = {
        "model": model,
        "objective": {"label_weight": 1.0},
        "train": {"merger_learning_rate": 3e-3, "epochs": 3},
        "generate": {"max_new_tokens": 12},
    }
    return make_recipe(strategy, **{**changes, **sections})


@pytest.fixture(scope="module")
def encoded(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A prepared folder with the features of a random 3D encoder, noise among them."""
    folder = tmp_path_factory.mktemp("encoded")
    copy = Prepared(shutil.copytree(prepared.folder, folder / "prepared"))
    write_encoded(folder / "tables", copy, num_noise=3)
    import_tables(copy, folder / "tables", "random-3d")
    return copy


def pairs_for(encoded: Prepared, recipe: Recipe, folder: Path) -> Path:
    path = folder / recipe.pairs.strategy / "pairs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, build_pairs(encoded.split("train"), recipe.pairs))
    return path


@pytest.fixture(scope="module")
def trained(encoded: Prepared, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, recipe = tmp_path_factory.mktemp("runs"), recipe_of()
    train(folder / "run", encoded, pairs_for(encoded, recipe, folder), recipe, start)
    return folder / "run"


def test_it_learns_from_what_the_encoder_saw_and_the_tower_does_not(
    trained: Path, encoded: Prepared, start: Path
) -> None:
    gaps = [row.validation_gap for row in metrics(trained) if row.validation_gap is not None]
    assert gaps[-1] > max(0.1, gaps[0])
    assert read_json(trained / "best" / ENCODER_FILE)["name"] == "random-3d"
    before, _ = load_model(start)
    read_by_encoder(before, find_encoder(encoded, "random-3d"), recipe_of().train.seed)
    after, _ = load_model(trained / "best")
    moved = {
        name
        for name, weight in after.state_dict().items()
        if not name.startswith("slice_attention.")
        and not torch.equal(weight, before.state_dict()[name])
    }
    assert {name for name in after.state_dict() if "encoder_projector." in name} <= moved
    assert any("language_model" in name for name in moved)
    assert not any("visual" in name for name in moved)


def test_an_interrupted_run_continues_exactly(
    encoded: Prepared, start: Path, trained: Path, tmp_path: Path
) -> None:
    recipe = recipe_of()
    pairs = pairs_for(encoded, recipe, tmp_path)

    def interrupt(step: int, total: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", encoded, pairs, recipe, start, progress=interrupt)
    train(tmp_path / "cut", encoded, pairs, recipe, start)
    assert_equal_runs(trained, tmp_path / "cut", tolerance=0)
    first, second = (
        load_file(run / "best" / PROJECTOR_FILE) for run in (trained, tmp_path / "cut")
    )
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_what_it_wrote_is_written_again_and_rests_on_planes(
    encoded: Prepared, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    assert tune(ReportWriter(tmp_path / "run"), encoded)[
        "tries"
    ]  # told by its queries, held against
    writer = ReportWriter(tmp_path / "run")
    rows = generate(writer, encoded, "validation", tmp_path / "a" / "predictions.jsonl")
    qwen, tokenizer = load_model(trained / "best")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    save_model(tmp_path / "again" / "best", qwen, tokenizer)
    again = ReportWriter(tmp_path / "again")
    assert generate(again, encoded, "validation", tmp_path / "b" / "predictions.jsonl") == rows
    found = find_evidence(
        writer, encoded, tmp_path / "a" / "predictions.jsonl", tmp_path / "e.jsonl"
    )
    pairs = [pair for row in found for sentence in row.sentences for pair in sentence.pairs]
    assert pairs
    for pair in pairs:
        assert pair.position_mm == (35.0 - 10 * pair.pair,)
        assert (pair.box_px is None) == (pair.box_mm is None)
    scan = encoded.scans("validation")[0]
    view = writer.features(encoded, [scan]).visual
    forced = writer.teacher_force(writer.read(scan.findings, scan.impression), view(scan))
    scores = log_probs(writer.qwen, forced, [frozenset(range(4))])
    assert -float(scores.mean()) == pytest.approx(float(writer.losses([scan], view)[0]), rel=1e-4)
    assert torch.equal(visual_tokens_of(writer.qwen, [view(scan)]), forced.visual_tokens)
    card = make_card(writer, encoded, "validation", tmp_path / "card")
    assert [*card["views"]] == ["real", "noise", "other_patient"]
    assert "blank" in card["not_shown"]


def test_noise_is_shown_where_the_encoder_has_seen_it_and_planes_where_they_can_stand(
    encoded: Prepared, start: Path, tmp_path: Path
) -> None:
    recipe = recipe_of("gauss", train={"epochs": 1})
    pairs = pairs_for(encoded, recipe, tmp_path)
    train(tmp_path / "run", encoded, pairs, recipe, start)
    counted = recipe_of("gauss", model={"positions": "index"})
    with refusal("E_POSITIONS", "positions: index needs the last slice pair's"):
        train(tmp_path / "none", encoded, pairs, counted, start)
    bare = Prepared(shutil.copytree(encoded.folder, tmp_path / "bare"))
    for path in bare.folder.glob("features/*/noise_*"):
        path.unlink()
    with refusal("E_ENCODER", "of the grid 4 × 4 × 4 there is none"):
        train(tmp_path / "none", bare, pairs, recipe, start)
    assert not (tmp_path / "none").exists()


def test_another_encoders_features_are_not_read(
    encoded: Prepared, trained: Path, start: Path, tmp_path: Path
) -> None:
    other = Prepared(shutil.copytree(encoded.folder, tmp_path / "other"))
    shutil.rmtree(other.folder / "features")
    with refusal(
        "E_ENCODER", "must hold features of the encoder random-3d, but holds those of none"
    ):
        generate(ReportWriter(trained), other, "validation", tmp_path / "p.jsonl")
    write_encoded(tmp_path / "tables", other)
    (tmp_path / "weights.bin").write_bytes(b"others")
    import_tables(other, tmp_path / "tables", "random-3d", tmp_path / "weights.bin")
    with refusal("E_ENCODER", "that the run learned to read, random-3d .* weights not given"):
        generate(ReportWriter(trained), other, "validation", tmp_path / "p.jsonl")
    recipe = recipe_of()
    pairs = pairs_for(other, recipe, tmp_path)
    with refusal("E_ENCODER", "the starting weights must read features of the encoder"):
        train(tmp_path / "run", other, pairs, recipe, trained / "best")
    tower = recipe_of(model={"encoder": None})
    with refusal("E_ENCODER", "that the recipe names, none"):
        train(tmp_path / "run", other, pairs, tower, trained / "best")
    with refusal("E_RUN_EXISTS", "the encoder"):
        shutil.copytree(trained, tmp_path / "moved")
        train(tmp_path / "moved", other, pairs, recipe, start)


def test_a_scan_without_them_is_refused_in_one_sentence(trained: Path, tmp_path: Path) -> None:
    writer = ReportWriter(trained)
    with refusal("E_ENCODER", "outside of a prepared folder there are none"):
        writer.report(tmp_path)
    with refusal("E_ENCODER", "outside of a prepared folder there are none"):
        serve(trained)
    with refusal("E_RECIPE", "a warm-up teaches the model's own vision tower"):
        warm_up(tmp_path / "warm", recipe_of())


def plain(recipe: Recipe) -> Recipe:
    model = recipe.model.model_copy(update=ALONE)
    return recipe.model_copy(update={"model": model})


def test_an_export_has_the_projector_beside_whole_weights(
    encoded: Prepared, start: Path, tmp_path: Path
) -> None:
    qwen, tokenizer = load_model(start)
    projector = attach_projector(qwen, find_encoder(encoded, "random-3d"))
    add_adapters(qwen, r=4, alpha=8)
    save_model(tmp_path / "best", qwen, tokenizer)
    assert publish(tmp_path / "best", tmp_path / "out", "merged", plain(recipe_of())) is not None
    exported = load_file(tmp_path / "out" / PROJECTOR_FILE)
    assert exported.keys() == projector.state_dict().keys()
    assert all(torch.equal(weight, exported[n]) for n, weight in projector.state_dict().items())
    assert read_json(tmp_path / "out" / "ctscribe.json")["encoder"] == "random-3d"
    with refusal("E_EXPORT", "an encoder's projector learned too"):
        publish(tmp_path / "best", tmp_path / "x", "adapters", plain(recipe_of()))


def test_levels_behind_the_first_start_at_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    qwen = tiny_of(QWEN3_VL, tokenizer)
    projected = attach_projector(qwen, Encoder("e", WIDTH))(torch.randn(5, WIDTH))
    assert projected.shape == (5, 3 * 64)
    assert float(projected[:, :64].detach().abs().mean()) > 0
    assert not projected[:, 64:].any()
