"""A report's sentences, and the tokens each is made of."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions
from ctscribe.text.sections import join_report, sentence_spans


@final
@dataclass(frozen=True)
class ReadSentence:
    """A sentence, and what it says of the 18 findings."""

    section: Literal["findings", "impression"]
    text: str
    present: tuple[int, ...]
    """Index into `FINDINGS` of what it affirms."""
    absent: tuple[int, ...]
    """Of what it denies."""


@final
@dataclass(frozen=True)
class ReadReport:
    """A report as one answer, its sentences, and which of its tokens belong to which."""

    answer: str
    sentences: tuple[ReadSentence, ...]
    tokens: Bool[Tensor, "sentences tokens"]


def read_report(findings: str, impression: str, tokenizer: PreTrainedTokenizerBase) -> ReadReport:
    """Cuts a report's two sections into sentences and their tokens.

    A token that two sentences share, such as a space between them, belongs to the later one. The
    tokenizer must be a fast one, which knows the place of each token.
    """
    answer = join_report(findings, impression)
    start = len("Findings: ")
    sections = (
        ("findings", findings.strip(), start),
        ("impression", impression.strip(), len(answer) - len(impression.strip())),
    )
    offsets = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    ends = torch.tensor(offsets["offset_mapping"]).reshape(-1, 2)[:, 1]
    sentences, members = [], []
    for section, text, shift in sections:
        for first, last in sentence_spans(text):
            sentences.append(_sentence(section, text[first:last]))
            members.append((ends > shift + first) & (ends <= shift + last))
    nothing = torch.zeros(0, len(ends), dtype=torch.bool)
    return ReadReport(answer, tuple(sentences), torch.stack(members) if members else nothing)


def _sentence(section: str, text: str) -> ReadSentence:
    said = {name: set[int]() for name in ("present", "absent", "uncertain")}
    for mention in find_mentions(text):
        said[mention.status].add(FINDINGS.index(mention.finding))
    return ReadSentence(
        "findings" if section == "findings" else "impression",
        text,
        tuple(sorted(said["present"])),
        tuple(sorted(said["absent"] - said["present"])),
    )
