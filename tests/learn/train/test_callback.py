"""The weight of the negatives, and checkpoints from which a run resumes."""

from pathlib import Path

import pytest

from ctscribe.base.recipe import ObjectiveConfig
from ctscribe.learn.train.callback import Beta, newest_complete, seal
from tests.damage import flip_bit
from tests.refusals import refusal


def steered(target_gap: float, checkpoint: Path | None = None) -> Beta:
    objective = ObjectiveConfig(beta=0.1, beta_schedule="steered", target_gap=target_gap)
    return Beta(objective, checkpoint)


def after(target_gap: float, *gaps: float | None) -> float:
    beta = steered(target_gap)
    for gap in gaps:
        beta.learn(gap)
    return beta.value


def test_a_constant_weight_ignores_what_happens(tmp_path: Path) -> None:
    beta = Beta(ObjectiveConfig(beta=0.1), None)
    beta.learn(9.0)
    assert beta.value == 0.1
    beta.save(tmp_path)
    assert Beta(ObjectiveConfig(beta=0.1), tmp_path).value == 0.1


def test_a_decaying_weight_falls_from_the_first_update_to_zero_at_the_last(tmp_path: Path) -> None:
    objective = ObjectiveConfig(beta=0.4, beta_schedule="decay")
    beta = Beta(objective, None)
    beta.learn(9.0)
    assert [beta.at(step, 5) for step in range(5)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    assert beta.at(4, 5) == 0.0
    assert beta.at(0, 1) == 0.4
    beta.save(tmp_path)
    assert Beta(objective, tmp_path).at(3, 5) == pytest.approx(0.1)


def test_beta_rises_below_the_target_and_falls_above_it() -> None:
    assert after(2.0, 0.0) == pytest.approx(0.105)
    assert after(2.0, 9.0) == pytest.approx(0.095)
    assert after(2.0, 2.0) == pytest.approx(0.1)
    assert after(2.0, None) == 0.1
    # the running mean of 1 and 6 nats is 1.5, a quarter below the target
    assert after(2.0, 1.0, 6.0) == pytest.approx(0.1 * 1.025 * 1.0125)


def test_beta_stays_within_a_factor_of_ten() -> None:
    assert (after(1.0, *[50.0] * 200), after(1.0, *[0.0] * 200)) == pytest.approx((0.01, 1.0))


def test_steering_finds_the_weight_that_keeps_the_target() -> None:
    """A plant whose gap follows β slowly: gap → 20·β."""
    beta, gap = steered(5.0), 2.0
    for _ in range(600):
        gap += 0.1 * (20 * beta.value - gap)
        beta.learn(gap)
    assert gap == pytest.approx(5.0, rel=0.05)
    assert beta.value == pytest.approx(0.25, rel=0.05)


def test_a_steered_weight_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, cut = steered(1.0), steered(1.0)
    for gap in (0.1, 0.4, 3.0):
        whole.learn(gap)
        cut.learn(gap)
    cut.save(tmp_path)
    cut = steered(1.0, tmp_path)
    for tested in (whole, cut):
        tested.learn(0.2)
        tested.learn(None)
    assert whole.value == cut.value != 0.1


def write(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(step))
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


def test_nothing_is_resumed_from_nothing(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    write(tmp_path, 3)
    assert newest_complete(tmp_path) is None


def test_only_sealed_checkpoints_count_and_only_the_last_is_kept(tmp_path: Path) -> None:
    write(tmp_path, 3)
    seal(tmp_path, 3, 1.5, (3, 1.5))
    write(tmp_path, 20)
    found = newest_complete(tmp_path)
    assert found is not None
    assert found[0].name == "checkpoint-3"
    note = seal(tmp_path, 20, 1.75, (3, 1.5))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-20"]
    assert newest_complete(tmp_path) == (tmp_path / "checkpoint-20", note)
    assert (note.best_step, note.best_validation_ce, note.validation_ce) == (3, 1.5, 1.75)


def test_pickled_arguments_do_not_stay(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    seal(tmp_path, 3, 1.5, (3, 1.5))
    assert sorted(path.name for path in folder.iterdir()) == ["complete.json", "model.safetensors"]


def sealed(run: Path, step: int = 7) -> Path:
    folder = write(run, step)
    seal(run, step, 1.0, (step, 1.0))
    return folder


def test_a_checkpoint_under_another_number_is_refused(tmp_path: Path) -> None:
    sealed(tmp_path).rename(tmp_path / "checkpoint-9")
    with refusal("E_CHECKPOINT", "checkpoint-9 must be as it was written, .* update 7"):
        newest_complete(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "complete.json"])
def test_one_flipped_bit_in_a_complete_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    folder = sealed(tmp_path)
    flip_bit(folder / name)
    with refusal("E_CHECKPOINT", name):
        newest_complete(tmp_path)


@pytest.mark.parametrize("marker", ["{", "{}", "null", '{"step": 7, "bytes": {}}'])
def test_a_marker_of_another_version_is_refused(tmp_path: Path, marker: str) -> None:
    (sealed(tmp_path) / "complete.json").write_text(marker)
    with refusal("E_CHECKPOINT", "not what this version writes"):
        newest_complete(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (sealed(tmp_path) / "model.safetensors").unlink()
    with refusal("E_CHECKPOINT", r"model\.safetensors"):
        newest_complete(tmp_path)


def test_an_earlier_whole_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    sealed(tmp_path, 7).rename(tmp_path / "kept")
    later = sealed(tmp_path, 9)
    (tmp_path / "kept").rename(tmp_path / "checkpoint-7")
    flip_bit(later / "model.safetensors")
    found = newest_complete(tmp_path)
    assert found is not None
    assert found[0].name == "checkpoint-7"
