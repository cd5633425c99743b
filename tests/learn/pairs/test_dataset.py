from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PairsConfig
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.learn.pairs.build import build_pairs
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import (
    Marks,
    PairDataset,
    Sample,
    Visual,
    mark_tokens,
    slice_pair_positions,
    strategy_of,
)
from ctscribe.text.prompt import answer_offsets, encode_example
from ctscribe.text.sections import join_report
from tests.studies import study_row


def show(study: StudyRow, noise_seed: int | None) -> Visual:
    """Features that say whose they are: the position of the first slice, or minus the seed."""
    value = study.position_mm[0] if noise_seed is None else -float(noise_seed)
    return Visual(
        grid_thw=(2, 4, 2),
        position_mm=slice_pair_positions(study.position_mm),
        visual_tokens=torch.full((4, 8), value),
    )


def make_dataset(
    studies: list[StudyRow], rows: list[PairRow], tokenizer: PreTrainedTokenizerBase, longest: int
) -> PairDataset:
    by_name = {study.volume_name: study for study in studies}
    return PairDataset(by_name, rows, tokenizer, show, longest)


def test_an_item_is_a_whole_pair(
    cohort: list[StudyRow], tokenizer: PreTrainedTokenizerBase
) -> None:
    studies = [
        study.model_copy(update={"position_mm": (float(n), n - 1.0, n - 2.0, n - 3.0)})
        for n, study in enumerate(cohort)
    ]
    rows = build_pairs(studies, PairsConfig(strategy="heter"))
    dataset = make_dataset(studies, rows, tokenizer, 500)
    assert len(dataset) == len(studies)
    names = [study.volume_name for study in studies]
    for number in range(0, len(studies), 7):
        item, negative_row = dataset[number], rows[2 * number + 1]
        assert item.negative is not None
        assert item.positive.study == item.negative.study == names[number]
        assert torch.equal(item.positive.labels, item.negative.labels)
        assert item.positive.visual.visual_tokens is not None
        assert item.negative.visual.visual_tokens is not None
        assert item.positive.visual.visual_tokens[0, 0] == number
        assert negative_row.volume is not None
        assert item.negative.visual.visual_tokens[0, 0] == names.index(negative_row.volume)


def test_noise_is_asked_for_by_seed(
    cohort: list[StudyRow], tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = build_pairs(cohort, PairsConfig(strategy="gauss"))
    negative = make_dataset(cohort, rows, tokenizer, 500)[3].negative
    assert negative is not None
    assert negative.visual.visual_tokens is not None
    assert rows[7].noise_seed is not None
    assert negative.visual.visual_tokens[0, 0] == -torch.tensor(float(rows[7].noise_seed))


def test_an_over_long_sample_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    study = study_row("train_5_a_1.nii.gz", findings="The lungs are clear. " * 40)
    dataset = make_dataset(
        [study], build_pairs([study], PairsConfig(strategy="origin")), tokenizer, 200
    )
    with pytest.raises(
        CtscribeError, match=r"fit into 200 tokens, but train_5_a_1\.nii\.gz"
    ) as told:
        dataset[0]
    assert told.value.code == "E_TOO_LONG"


def test_a_missing_volume_never_becomes_another(
    cohort: list[StudyRow], tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = build_pairs(cohort, PairsConfig(strategy="heter"))
    gone = rows[1].volume
    left = [study for study in cohort if study.volume_name != gone]
    with pytest.raises(CtscribeError, match=f"but {gone} is none"):
        make_dataset(left, rows, tokenizer, 500)


def test_torn_pairs_are_refused(cohort: list[StudyRow], tokenizer: PreTrainedTokenizerBase) -> None:
    rows = build_pairs(cohort, PairsConfig(strategy="gauss"))
    for torn in (rows[1:], rows[:-1], [rows[0], rows[3], rows[2], rows[1]]):
        with pytest.raises(CtscribeError, match="followed by its own negative"):
            make_dataset(cohort, torn, tokenizer, 500)


def test_batches_are_padded_right_and_carry_loss_on_the_answer_only(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    studies = [
        study_row("a", labels=(0,) * 18, findings="Trachea open."),
        study_row("b", labels=(1,) * 18, findings="Both main bronchi are open. " * 3),
    ]
    rows = build_pairs(studies, PairsConfig(strategy="heter"))
    dataset = make_dataset(studies, rows, tokenizer, 500)
    batch = collate_pairs([dataset[0], dataset[1]], pad_id=tokenizer.pad_token_id)
    positive, negative = batch["positive"], batch["negative"]
    assert negative is not None
    assert batch["studies"] == ["a", "b"]
    assert torch.equal(positive["input_ids"], negative["input_ids"])
    lengths = [len(dataset[n].positive.input_ids) for n in (0, 1)]
    assert positive["input_ids"].shape == (2, max(lengths))
    assert positive["attention_mask"].sum(1).tolist() == lengths
    assert (positive["input_ids"][0, lengths[0] :] == tokenizer.pad_token_id).all()
    assert (positive["labels"][positive["attention_mask"] == 0] == -100).all()
    for row, study in enumerate(studies):
        supervised = positive["labels"][row][positive["labels"][row] >= 0]
        assert tokenizer.decode(supervised) == (
            f"Findings: {study.findings.strip()}\nImpression: Normal chest.<|im_end|>"
        )
    assert positive["video_grid_thw"].tolist() == [[2, 4, 2]] * 2
    assert positive["position_mm"].tolist() == [[75.0, 15.0]] * 2
    assert positive["visual_tokens"].shape == (8, 8)
    assert "frames" not in positive


def test_a_negative_that_shares_a_prompt_leaves_its_volume_to_the_positive(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    sick = {name: study_row(name, labels=(1,) * 18) for name in "abc"}
    well = {name: study_row(name, labels=(0,) * 18) for name in "xyz"}
    shown = {"a": "x", "x": "a", "b": "z", "y": "b", "z": "c", "c": "z"}
    rows = [
        row
        for study, volume in shown.items()
        for row in (
            PairRow(study=study, role="positive", volume=study),
            PairRow(study=study, role="negative", volume=volume, disputed=()),
        )
    ]

    def named(study: StudyRow, noise_seed: int | None) -> Visual:
        tokens = torch.full((2, 8), float(ord(study.volume_name)))
        return Visual((1, 4, 2), (0.0,), visual_tokens=tokens)

    dataset = PairDataset(sick | well, rows, tokenizer, named, 500)
    assert dataset.couples() == [(0, 1), (4, 5)]
    pairs = [dataset[number] for number in (0, 2, 1)]  # z is not among them
    negative = collate_pairs(pairs, 0, sharing=True)["negative"]
    whole = collate_pairs(pairs, 0)["negative"]
    assert negative is not None
    assert whole is not None
    assert negative["prompt_rows"] == [2, None, 0]
    assert "prompt_rows" not in whole
    assert whole["visual_tokens"][:, 0].tolist() == [ord(name) for name in "xxzzaa"]
    assert negative["visual_tokens"][:, 0].tolist() == [ord(name) for name in "zz"]
    # told something else of the same volume, it is another prompt
    told = replace(pairs[2].positive.visual, cue=("nodule",))
    ids, labels = encode_example(tokenizer, "Clear.", told.grid_thw, told.cue)
    other = Sample("x", torch.tensor(ids), torch.tensor(labels), told)
    pairs[2] = replace(pairs[2], positive=other)
    negative = collate_pairs(pairs, 0, sharing=True)["negative"]
    assert negative is not None
    assert negative["prompt_rows"] == [None, None, 0]


def test_frames_stay_a_list(cohort: list[StudyRow], tokenizer: PreTrainedTokenizerBase) -> None:
    def frames(study: StudyRow, noise_seed: int | None) -> Visual:
        seen = torch.zeros(4, 28, 56, 3, dtype=torch.uint8)
        return Visual((2, 2, 4), slice_pair_positions(study.position_mm), frames=seen)

    by_name = {study.volume_name: study for study in cohort}
    rows = build_pairs(cohort, PairsConfig(strategy="origin"))
    dataset = PairDataset(by_name, rows, tokenizer, frames, 500)
    batch = collate_pairs([dataset[0], dataset[1]], pad_id=0)
    assert batch["negative"] is None
    assert [tuple(seen.shape) for seen in batch["positive"]["frames"]] == [(4, 28, 56, 3)] * 2
    assert "visual_tokens" not in batch["positive"]


def test_strategies_are_told_from_the_rows_and_never_mixed(cohort: list[StudyRow]) -> None:
    for strategy in ("origin", "gauss", "heter"):
        rows = build_pairs(cohort, PairsConfig(strategy=strategy))
        assert strategy_of(rows) == strategy
    hard = [row.model_copy(update={"alternatives": ("a",)}) for row in rows]
    assert strategy_of(hard) == "hard"
    mixed = build_pairs(cohort[:50], PairsConfig(strategy="gauss")) + build_pairs(
        cohort[50:], PairsConfig(strategy="heter")
    )
    with pytest.raises(CtscribeError, match="must be of one kind"):
        strategy_of(mixed)


REPORT = join_report(
    "The trachea is open. No pleural or pericardial effusion is seen. "
    "A nodule of 1.2 cm is seen in the right lung. The liver is normal.",
    "Lung nodule.",
)


def words(report: str) -> list[tuple[int, int]]:
    """Offsets of words parted by white space, as a tokenizer gives them for its tokens."""
    found, start = [], 0
    for word in report.split():
        start = report.index(word, start)
        found.append((start, start + len(word)))
        start += len(word)
    return found


def marked(flags: torch.Tensor) -> str:
    chosen = zip(REPORT.split(), flags[:-1].tolist(), strict=True)
    return " ".join(word for word, is_marked in chosen if is_marked)


def marks(disputed: set[str] | None) -> Marks:
    return mark_tokens(REPORT, words(REPORT), disputed)


def test_sentences_that_state_a_finding_are_marked_without_their_heading() -> None:
    stated = "A nodule of 1.2 cm is seen in the right lung. Lung nodule."
    assert marked(marks(set()).finding) == stated
    assert marked(marks(set()).disputed) == ""
    assert marked(marks(None).disputed) == stated, "noise shows no finding"


@pytest.mark.parametrize(
    ("disputed", "text"),
    [
        ({"Lung nodule"}, "A nodule of 1.2 cm is seen in the right lung. Lung nodule."),
        ({"Pericardial effusion"}, "No pleural or pericardial effusion is seen."),
        ({"Emphysema"}, ""),
    ],
)
def test_a_finding_the_volumes_differ_in_marks_its_sentences_stated_or_denied(
    disputed: set[str], text: str
) -> None:
    assert marked(marks(disputed).disputed) == text


def test_there_is_one_mark_for_every_token_and_none_for_the_end_of_turn(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    offsets = answer_offsets(tokenizer, REPORT)
    ids = tokenizer.encode(REPORT, add_special_tokens=False)
    assert len(offsets) == len(ids)
    found = mark_tokens(REPORT, offsets, None)
    assert len(found.finding) == len(ids) + 1
    assert not found.finding[-1]
    kept = torch.tensor(ids)[found.finding[:-1]]
    stated = "A nodule of 1.2 cm is seen in the right lung. Lung nodule."
    assert tokenizer.decode(kept).split() == stated.split()
