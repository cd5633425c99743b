"""BLEU, ROUGE-L and CIDEr from sufficient statistics per report.

Definitions: Papineni et al. 2002 (BLEU, corpus level, one reference, no smoothing), Lin 2004
(ROUGE-L, beta 1.2), Vedantam et al. 2015 (CIDEr with clipping and a Gaussian length penalty of
sigma 6, times ten). Written from these definitions; the values equal those of the COCO caption
scorers, which CT-RATE's challenge runs on untokenised, cased text. What a profile makes of a text
before it is compared is `normalise`'s.

Every corpus score is a function of sums over reports, so one row of numbers per report is all
that an interval needs. CIDEr's document frequencies stay those of the whole reference set.
"""

import re
import shutil
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float64, Int32, Int64, Integer
from scipy import sparse

from ctscribe.base.errors import CtscribeError

Profile = Literal["ctrate-raw", "vlm3d", "r2gen"]
LANGUAGE_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")

NUM_LANGUAGE_COLUMNS = 13
"""Sufficient statistics per scan."""

ORDERS = 4
"""Longest n-gram."""

# Keep a division by zero finite; corpus BLEU of identical texts is 0.9999999996 by them.
_TINY, _SMALL = 1e-15, 1e-9

_ROUGE_BETA_SQUARED = 1.2**2
_CIDER_SIGMA = 6.0
_CHALLENGE_DELETES = ("<|eot_id|>", '"', "_")
_R2GEN_LISTS = tuple(f"{before}{n}. " for before in (". ", " ") for n in range(2, 6))
_R2GEN_PUNCTUATION = re.compile(r"[.,?;*!%^&_+()\[\]{}:<=>@\"'/\\]")


def language_statistics(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile = "ctrate-raw"
) -> Float64[np.ndarray, "scans 13"]:
    """Sufficient statistics of each prediction against the reference in the same place.

    Returns:
        Per scan: clipped matches of n = 1..4, n-grams written of n = 1..4, words written, words
        of the reference, ROUGE-L, CIDEr, and 1. `language_scores` reads sums of such rows.
    """
    (rows,) = each_language_statistics([predictions], references, profile)
    return rows


def each_language_statistics(
    systems: Sequence[Sequence[str]], references: Sequence[str], profile: Profile = "ctrate-raw"
) -> Iterator[Float64[np.ndarray, "scans 13"]]:
    """`language_statistics` of what several systems wrote; the references are counted once."""
    truth = [normalise(text, profile, predicted=False) for text in references]
    texts = dict.fromkeys(text for system in systems for text in system)
    normal = {text: normalise(text, profile, predicted=True) for text in texts}
    words = {text: normal[text].split() for text in texts}
    flat = [words[text] for system in systems for text in system]
    counts = count_ngrams(flat, [text.split() for text in truth])
    rouge = each_rouge_l([[normal[text] for text in system] for system in systems], truth)
    for number in range(len(systems)):
        own = slice(number * len(truth), (number + 1) * len(truth))
        part = replace(
            counts,
            written_row=counts.written_row[own],
            written_length=counts.written_length[own],
        )
        rest = [rouge[number], _cider(part), np.ones(len(truth))]
        yield np.hstack([_bleu_columns(part), np.stack(rest, axis=1)])


def language_metrics(profile: Profile) -> tuple[str, ...]:
    """`LANGUAGE_METRICS`, and what the profile's scorer reports besides."""
    return (*LANGUAGE_METRICS, "bleu_mean") if profile == "vlm3d" else LANGUAGE_METRICS


def language_scores(
    totals: Float64[np.ndarray, "rows 13"], profile: Profile = "ctrate-raw"
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The profile's `language_metrics` from rows of sums of `language_statistics`.

    Returns:
        Metric → one value per row. ``bleu_mean`` is the mean of BLEU-1..4.
    """
    scores = bleu_scores(totals[:, :10])
    if profile == "vlm3d":
        scores["bleu_mean"] = np.mean([*scores.values()], axis=0)
    scores["rouge_l"] = totals[:, 10] / totals[:, 12]
    scores["cider"] = totals[:, 11] / totals[:, 12]
    return scores


def language_signature(metric: str, profile: Profile, num_scans: int) -> str:
    """Says how a language score was computed, so that only equals are compared."""
    tokens = "space" if metric == "rouge_l" else "whitespace"
    case = "lower" if profile == "r2gen" else "mixed"
    detail = {
        "rouge_l": "level:report-mean|beta:1.2",
        "cider": "level:report-mean|n:4|sigma:6|idf:references|times:10",
        "bleu_mean": "level:corpus|smooth:none|refs:1|mean:bleu_1..4",
    }.get(metric, "level:corpus|smooth:none|refs:1")
    return f"{metric}|profile:{profile}|split:{tokens}|case:{case}|{detail}|scans:{num_scans}"


def normalise(text: str, profile: Profile, *, predicted: bool) -> str:
    """Brings a report into the form whose tokens the profile compares.

    ``vlm3d`` does what the scorer of CT-RATE's challenge, VLM3D, does: predictions lose quotation
    marks, underscores and the end token; then newlines vanish without leaving a space, and a point
    swallows the spaces around it. ``ctrate-raw`` does the same in the other order. ``r2gen`` is the
    tokenizer of R2Gen (Chen et al. 2020) and CT2Rep: lower case, no punctuation, `` . `` between
    sentences; of numbers it drops those it takes for a list's, "1. " anywhere and 2 to 5 where
    they stand alone at the end of a sentence.
    """
    if profile == "r2gen":
        return _tokens_of_r2gen(text)
    deleted = _CHALLENGE_DELETES if predicted else ()
    if profile == "vlm3d":
        text = _without(text, deleted)
    text = text.replace("\n", "").replace(" . ", ".").replace(" .", ".")
    return text if profile == "vlm3d" else _without(text, deleted)


def _without(text: str, deleted: Iterable[str]) -> str:
    for each in deleted:
        text = text.replace(each, "")
    return text


def _tokens_of_r2gen(text: str) -> str:
    flat = re.sub(r"\.{2,}", ".", re.sub(" {2,}", " ", text.replace("\n", " ")))
    flat = flat.replace("1. ", "")
    for number in _R2GEN_LISTS:
        flat = flat.replace(number, ". ")
    sentences = (_R2GEN_PUNCTUATION.sub("", part) for part in flat.strip().lower().split(". "))
    # Its vocabulary parts tokens at any white space and joins them by one space.
    return " . ".join(" ".join(sentence.split()) for sentence in sentences) + " ."


def bleu_4(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile = "ctrate-raw"
) -> float:
    """Corpus BLEU-4 alone, without the cost of the other scores."""
    written = [normalise(text, profile, predicted=True).split() for text in predictions]
    truth = [normalise(text, profile, predicted=False).split() for text in references]
    columns = _bleu_columns(count_ngrams(written, truth))
    return float(bleu_scores(columns.sum(axis=0, keepdims=True))["bleu_4"][0])


def meteor(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile
) -> dict[str, float | str | None]:
    """Corpus METEOR of the normalised texts: ``value``, no ``low`` and ``high``, ``signature``.

    Raises:
        CtscribeError: ``E_METEOR`` without Java or without pycocoevalcap.
    """
    try:
        from pycocoevalcap.meteor.meteor import Meteor  # type: ignore[import-not-found]
    except ImportError as error:
        raise _lacking("pycocoevalcap 1.2, which does not import") from error
    if shutil.which("java") is None:
        raise _lacking("Java, which is not on the path")
    # One text is one line of the program's input.
    written = {i: [_line(t, profile, predicted=True)] for i, t in enumerate(predictions)}
    truth = {i: [_line(t, profile, predicted=False)] for i, t in enumerate(references)}
    value, _ = Meteor().compute_score(truth, written)
    signature = f"meteor|profile:{profile}|jar:1.5|lang:en|level:corpus|scans:{len(truth)}"
    return {"value": float(value), "low": None, "high": None, "signature": signature}


def _line(text: str, profile: Profile, *, predicted: bool) -> str:
    return " ".join(normalise(text, profile, predicted=predicted).split())


def _lacking(what: str) -> CtscribeError:
    return CtscribeError("E_METEOR", f"METEOR needs {what}")


@final
@dataclass(frozen=True)
class NgramCounts:
    """Counts per order n = 1..4 of what was written and of the truth, over shared columns."""

    written: tuple[Any, ...]
    """Four sparse matrices [distinct written reports, n-grams]."""
    truth: tuple[Any, ...]
    """Four sparse matrices [scans, n-grams]."""
    written_row: Int64[np.ndarray, "reports"]
    """Row of `written` of each report that was written: one a scan, or one a scan and system."""
    written_length: Int64[np.ndarray, "reports"]
    """Words of each report that was written."""
    truth_length: Int64[np.ndarray, "scans"]
    """Words of each scan's reference."""

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Per order: what was written for each scan, and its reference, row by row."""
        for written, truth in zip(self.written, self.truth, strict=True):
            yield written[self.written_row], truth

    def matches(self) -> list[Float64[np.ndarray, "scans"]]:
        """Per order: n-grams of each scan's reference that were written, clipped to its count."""
        return [
            np.asarray(written.minimum(truth).sum(axis=1), dtype=np.float64).ravel()
            for written, truth in self.pairs()
        ]


def count_ngrams(written: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> NgramCounts:
    """Counts the n-grams of tokenised reports; equal written reports are counted once."""
    distinct: dict[tuple[str, ...], int] = {}
    rows = np.array(
        [distinct.setdefault(tuple(tokens), len(distinct)) for tokens in written], dtype=np.int64
    )
    split, reports = len(distinct), [*distinct, *truth]
    lengths = np.array([len(tokens) for tokens in reports], dtype=np.int64)
    halves = [(matrix[:split], matrix[split:]) for matrix in ngram_matrices(reports)]
    return NgramCounts(
        written=tuple(written for written, _ in halves),
        truth=tuple(truth for _, truth in halves),
        written_row=rows,
        written_length=lengths[:split][rows],
        truth_length=lengths[split:],
    )


def number_words(
    reports: Iterable[Sequence[str]],
) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "reports"]]:
    """Numbers the words of tokenised reports by their first occurrence.

    Returns:
        The numbers, one report after the other, and how many each report has.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    tokens, lengths = array("i"), array("q")
    for words in reports:
        tokens.extend(map(vocabulary.__getitem__, words))
        lengths.append(len(words))
    return np.array(tokens, np.int32), np.array(lengths, np.int64)


def ngram_matrices(reports: Iterable[Sequence[str]], orders: int = ORDERS) -> Iterator[Any]:
    """Counts of n = 1, 2, … words in tokenised reports: a sparse matrix [reports, n-grams] each."""
    tokens, lengths = number_words(reports)
    report = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    ends = np.cumsum(lengths, dtype=np.int32)[report]
    by_word = _sorted_by(tokens, np.arange(len(tokens), dtype=np.int32))
    ngram_at, starts = tokens.copy(), by_word
    for order in range(1, orders + 1):
        if order > 1:
            # An n-gram is its first n − 1 words and its last; it is numbered in the order of both.
            starts = by_word[by_word >= order - 1] - (order - 1)
            starts = starts[starts + order <= ends[starts]]
            starts = starts[_sorted_by(ngram_at[starts], np.arange(len(starts)))]
            last = tokens[starts + order - 1]
            is_new = (np.diff(ngram_at[starts]) != 0) | (np.diff(last) != 0)
            ngram_at[starts] = np.cumsum(np.append(False, is_new)[: len(starts)], dtype=np.int32)
        ngrams = np.bincount(ngram_at[starts], minlength=1)
        columns = (np.ones(len(starts)), report[starts], np.append(0, np.cumsum(ngrams)))
        matrix = sparse.csc_matrix(columns, shape=(len(lengths), len(ngrams))).tocsr()
        matrix.sum_duplicates()
        yield matrix


def _sorted_by(
    numbers: Int32[np.ndarray, "some"], values: Integer[np.ndarray, "some"]
) -> Integer[np.ndarray, "some"]:
    """The values in the order of small numbers, stable, in time linear in both."""
    shape = (len(numbers), int(numbers.max(initial=0)) + 1)
    rows = (values, numbers, np.arange(len(numbers) + 1))
    order: Integer[np.ndarray, "some"] = sparse.csr_matrix(rows, shape=shape).tocsc().data
    return order


def _bleu_columns(counts: NgramCounts) -> Float64[np.ndarray, "scans 10"]:
    lengths = [counts.written_length, counts.truth_length]
    guesses = [np.maximum(0, lengths[0] - order) for order in range(ORDERS)]
    columns = [*counts.matches(), *guesses, *lengths]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def bleu_scores(
    totals: Float64[np.ndarray, "rows 10"],
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """Corpus BLEU-1..4 from sums of matches and n-grams of each order, and of both lengths."""
    precisions = (totals[:, 0:4] + _TINY) / (totals[:, 4:8] + _SMALL)
    ratio = (totals[:, 8] + _TINY) / (totals[:, 9] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    scores = {}
    product = np.ones_like(ratio)
    for order in range(ORDERS):
        product = product * precisions[:, order]
        scores[f"bleu_{order + 1}"] = product ** (1 / (order + 1)) * brevity
    return scores


def each_rouge_l(
    systems: Sequence[Sequence[str]], references: Sequence[str]
) -> Float64[np.ndarray, "systems scans"]:
    """ROUGE-L of normalised reports of several systems against their normalised references.

    Each reference is read once, and so is a report that several systems wrote for it.
    """
    scores = np.empty((len(systems), len(references)))
    for scan, reference in enumerate(references):
        # Split at single spaces on purpose: two spaces make an empty token, as in the COCO scorer.
        wanted = reference.split(" ")
        places, known = token_places(wanted), dict[str, float]()
        for number, system in enumerate(systems):
            text = system[scan]
            if text not in known:
                tokens = text.split(" ")
                common = lcs_length(tokens, places, len(wanted))
                known[text] = _rouge_l(common, len(tokens), len(wanted))
            scores[number, scan] = known[text]
    return scores


def _rouge_l(common: int, written: int, wanted: int) -> float:
    """From the tokens in common, written, and of the reference."""
    if common == 0:
        return 0.0
    precision, recall = common / written, common / wanted
    weighted = (1 + _ROUGE_BETA_SQUARED) * precision * recall
    return weighted / (recall + _ROUGE_BETA_SQUARED * precision)


def token_places(tokens: Sequence[str]) -> dict[str, int]:
    """Token → where it stands, a bit for each place."""
    places: dict[str, int] = {}
    for place, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << place
    return places


def lcs_length(tokens: Sequence[str], places: Mapping[str, int], length: int) -> int:
    """Length of the longest common subsequence, by bit-parallel dynamic programming.

    One row of the classical table is one integer, and a whole row is updated by an addition
    (Crochemore et al. 2001; Hyyrö 2004).

    Args:
        tokens: Of one sequence; there is a step for each.
        places: `token_places` of the other, which has ``length`` tokens.
    """
    full = (1 << length) - 1
    row = full
    for mask in map(places.get, tokens):
        if mask:
            matched = row & mask
            row = ((row + matched) | (row - matched)) & full
    return length - row.bit_count()


def _cider(counts: NgramCounts) -> Float64[np.ndarray, "scans"]:
    """Mean over n of the clipped cosine of tf-idf vectors, with the length penalty, times ten."""
    num_scans = len(counts.truth_length)
    total = np.zeros(num_scans)
    for written, truth in counts.pairs():
        document_frequency = np.asarray((truth > 0).sum(axis=0), dtype=np.float64).ravel()
        idf = np.log(max(1, num_scans)) - np.log(np.maximum(1.0, document_frequency))
        weighted, wanted = written.multiply(idf).tocsr(), truth.multiply(idf).tocsr()
        dot = np.asarray(weighted.minimum(wanted).multiply(wanted).sum(axis=1)).ravel()
        norms = np.sqrt(
            np.asarray(weighted.power(2).sum(axis=1)).ravel()
            * np.asarray(wanted.power(2).sum(axis=1)).ravel()
        )
        total += np.divide(dot, norms, out=np.zeros(num_scans), where=norms > 0)
    # The COCO scorer measures length in bigrams.
    bigrams = [np.maximum(0, n - 1) for n in (counts.written_length, counts.truth_length)]
    penalty = np.exp(-((bigrams[0] - bigrams[1]) ** 2) / (2 * _CIDER_SIGMA**2))
    scores: Float64[np.ndarray, "scans"] = 10 * total / ORDERS * penalty
    return scores
