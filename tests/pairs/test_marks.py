import pytest
import torch

from ctscribe.model.tokenizer import train_tokenizer
from ctscribe.pairs.marks import Marks, mark_tokens
from ctscribe.reports.prompt import answer_offsets
from ctscribe.reports.sections import join_report

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


def test_there_is_one_mark_for_every_token_and_none_for_the_end_of_turn() -> None:
    tokenizer = train_tokenizer([REPORT] * 3, 400)
    offsets = answer_offsets(tokenizer, REPORT)
    ids = tokenizer.encode(REPORT, add_special_tokens=False)
    assert len(offsets) == len(ids)
    found = mark_tokens(REPORT, offsets, None)
    assert len(found.finding) == len(ids) + 1
    assert not found.finding[-1]
    kept = torch.tensor(ids)[found.finding[:-1]]
    stated = "A nodule of 1.2 cm is seen in the right lung. Lung nodule."
    assert tokenizer.decode(kept).split() == stated.split()
