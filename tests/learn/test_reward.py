"""What a report earns, by hand."""

import pytest
import torch

from ctscribe.base.recipe import ReinforceConfig
from ctscribe.base.types import Labels
from ctscribe.learn.reward import advantages, draw_others, reward_of, set_f1, stated_labels
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import known_labels
from tests.refusals import refusal
from tests.studies import SENTENCES, reported_studies, study_row

HERNIA, NODULE, FLUID = "Hiatal hernia", "Lung nodule", "Pleural effusion"


def labels(*findings: str) -> Labels:
    return tuple(int(finding in findings) for finding in FINDINGS)


def says(*findings: str) -> str:
    return f"Findings: {' '.join(SENTENCES[f] for f in findings)}\nImpression: As above."


@pytest.mark.parametrize(
    ("stated", "true", "f1"),
    [
        ((), (), 1.0),
        ((NODULE,), (), 0.0),
        ((), (NODULE,), 0.0),
        ((NODULE,), (NODULE,), 1.0),
        ((NODULE,), (FLUID,), 0.0),
        ((NODULE, FLUID), (NODULE,), 2 / 3),
        ((NODULE, FLUID), (NODULE, HERNIA), 1 / 2),
        ((NODULE, FLUID, HERNIA), (NODULE, HERNIA), 4 / 5),
    ],
)
def test_the_f1_of_two_sets(stated: tuple[str, ...], true: tuple[str, ...], f1: float) -> None:
    assert set_f1(labels(*stated), labels(*true)) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("written", "finished", "own", "other", "earns"),
    [
        ((NODULE,), True, (NODULE,), (FLUID,), 1.0),
        ((NODULE,), False, (NODULE,), (FLUID,), 1.0 - 0.7),
        ((FLUID,), True, (NODULE,), (FLUID,), -0.5),
        ((NODULE, FLUID), True, (NODULE,), (FLUID,), 2 / 3 - 0.5 * 2 / 3),
        ((), True, (), (NODULE,), 1.0),
        ((), True, (NODULE,), (), -0.5),
        ((NODULE,), True, (), (NODULE,), -0.5),
    ],
)
def test_a_report_earns_its_own_f1_less_a_strangers_and_less_for_a_cut(
    written: tuple[str, ...],
    finished: bool,
    own: tuple[str, ...],
    other: tuple[str, ...],
    earns: float,
) -> None:
    config = ReinforceConfig(other_weight=0.5, unfinished_penalty=0.7)
    earned = reward_of(
        says(*written), finished=finished, own=labels(*own), other=labels(*other), config=config
    )
    assert earned.reward == pytest.approx(earns)
    assert earned.own_f1 == set_f1(labels(*written), labels(*own))
    assert earned.other_f1 == set_f1(labels(*written), labels(*other))


def test_reciting_earns_nothing_over_all_pairs_of_patients_who_differ() -> None:
    patients = [labels(), labels(NODULE), labels(NODULE, FLUID), labels(HERNIA)]
    config = ReinforceConfig(other_weight=1.0)
    for recited in ((), (NODULE,), (NODULE, FLUID, HERNIA)):
        earned = [
            reward_of(says(*recited), finished=True, own=own, other=other, config=config).reward
            for own in patients
            for other in patients
            if own != other
        ]
        assert sum(earned) == pytest.approx(0)


def test_what_is_stated_is_read_without_the_headings() -> None:
    assert stated_labels(says(NODULE, HERNIA)) == labels(NODULE, HERNIA)
    assert stated_labels("No nodule. No effusion.") == labels()
    assert stated_labels("") == labels()


def test_known_labels_come_first_and_else_the_report_is_read() -> None:
    words = {"findings": SENTENCES[NODULE], "impression": SENTENCES[FLUID]}
    assert known_labels(study_row("a", labels=labels(HERNIA), **words)) == labels(HERNIA)
    assert known_labels(study_row("a", labels=labels(), **words)) == labels()
    assert known_labels(study_row("a", labels=None, **words)) == labels(NODULE, FLUID)


def test_the_other_patient_differs_and_follows_from_the_seed() -> None:
    studies = reported_studies(40)
    own = [known_labels(study) for study in studies]
    drawn = [draw_others(studies, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for others in drawn:
        assert all(other in own for other in others)
        assert all(mine != other for mine, other in zip(own, others, strict=True))
    alike = [study_row(f"train_{n}_a_1.nii.gz", labels=labels(NODULE)) for n in range(3)]
    with refusal("E_NO_NEGATIVE", "3 of 3 studies have none"):
        draw_others(alike, 0)


def test_advantages_are_in_standard_deviations_of_each_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [3.0, 0.0, 0.0, 0.0]])
    gains = advantages(rewards.double())
    assert gains[0].tolist() == [1, -1, -1, 1]
    assert gains[1].tolist() == [0, 0, 0, 0]
    root = 3**0.5
    assert gains[2].tolist() == pytest.approx([root, -1 / root, -1 / root, -1 / root])
    scaled = advantages(7 * rewards.double() + 3)
    torch.testing.assert_close(scaled, gains)


def test_rounding_is_no_difference() -> None:
    third = 1 / 3
    gains = advantages(torch.tensor([[third, 1 - 2 * third, third]], dtype=torch.float64))
    assert gains.tolist() == [[0, 0, 0]]


def test_every_patient_who_differs_can_be_drawn() -> None:
    studies = [
        study_row(f"train_{n}_a_1.nii.gz", labels=labels(*found))
        for n, found in enumerate([(NODULE,), (NODULE,), (NODULE, FLUID), (HERNIA,)])
    ]
    met = {tuple(draw_others(studies, seed)[0]) for seed in range(6)}
    assert met == {labels(NODULE, FLUID), labels(HERNIA)}
