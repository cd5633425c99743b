"""How much of a set of reports is one report, such as a template that many patients share."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from ctscribe.measure.language import bleu_4
from ctscribe.measure.scans import Sections, labelled_text, scored_text
from ctscribe.text.sections import split_sentences

SHARED_BY = 0.01
"""A sentence is shared when at least this share of the patients, and at least two, have it."""

SELF_BLEU_REPORTS = 1000
"""Self-BLEU is estimated on at most this many reports, drawn with the seed."""

_NOT_A_WORD = re.compile(r"\W+")


def template_statistics(
    written: Sequence[Sections], patient_ids: Sequence[str], seed: int
) -> dict[str, float | int]:
    """Measures how alike reports are, one per scan; ``seed`` draws whom each is compared with.

    Returns:
        ``shared_token_share``: words in shared sentences, of all words; ``distinct_reports``;
        ``repeated_share``: of all reports, those that another one says already; ``self_bleu_4``:
        corpus BLEU-4 of each report against one of another scan, 1 when all are the same.
    """
    texts = [scored_text(*sections) for sections in written]
    parsed = [
        [_words(sentence) for sentence in split_sentences(labelled_text(*sections))]
        for sections in written
    ]
    patients_of = defaultdict(set)
    for sentences, patient in zip(parsed, patient_ids, strict=True):
        for words in sentences:
            patients_of[words].add(patient)
    enough = max(2, SHARED_BY * len(set(patient_ids)))
    lengths = Counter[bool]()
    for words in chain.from_iterable(parsed):
        lengths[len(patients_of[words]) >= enough] += words.count(" ") + 1
    distinct = len(set(texts))
    return {
        "shared_token_share": lengths[True] / max(1, lengths.total()),
        "distinct_reports": distinct,
        "repeated_share": 1 - distinct / max(1, len(texts)),
        "self_bleu_4": _self_bleu(texts, seed),
    }


@lru_cache(maxsize=1 << 15)
def _words(sentence: str) -> str:
    return " ".join(_NOT_A_WORD.sub(" ", sentence).lower().split())


def _self_bleu(texts: Sequence[str], seed: int) -> float:
    if len(texts) < 2:
        return 0.0
    order = np.random.default_rng(seed).permutation(len(texts))[:SELF_BLEU_REPORTS]
    # Everyone's partner is the next in a shuffled circle, so nobody meets himself.
    first = [texts[i] for i in order]
    second = [texts[i] for i in np.roll(order, 1)]
    return bleu_4(predictions=first, references=second)
