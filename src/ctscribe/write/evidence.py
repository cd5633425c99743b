"""What each sentence of a report rests on in its volume.

In: a report's sentences and tokens, and the same report behind its scan. Out: for each sentence
its slice pairs, ranked by the finding queries' attention or by how much less probable the
sentence is without them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.rows import Row
from ctscribe.base.types import BoxMm
from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.decoding import visual_tokens_of
from ctscribe.learn.model.finding_queries import (
    LocatedFindings,
    finding_queries_of,
    gate_visual_tokens,
    locate_findings,
)
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.qwen import language_inputs, stack_inputs
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.scan.boxes import BoxPx, box_around_peak
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions
from ctscribe.text.prompt import IGNORED, encode_example, pair_of_tokens
from ctscribe.text.sections import join_report, sentence_spans
from ctscribe.write.draft import SentenceRow, SliceEvidence
from ctscribe.write.layers import FindLayer


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


SETS_PER_CALL = 16
_TOKENS_PER_CALL = 16 * 4096
"""Of a scan of many tokens, as another encoder's grid has, fewer sets go together."""

PARTICULAR_NATS = 0.3
"""A sentence that loses less than this by any slice pair's absence is boilerplate. On phantoms,
6 % of stock sentences lose more, and 54 % of those that state a finding."""

_SHARE_OF_PEAK = 0.05

Kept = frozenset[int]
"""Slice pairs that stay, counted in frame order."""


@final
@dataclass(frozen=True)
class ReportOnScan:
    """One report behind one scan, as the model is asked how probable it is."""

    input_ids: Int[Tensor, "tokens"]
    answer_start: int
    """Index of the answer's first token."""
    pair_of: Int[Tensor, "tokens"]
    """Slice pair that each token shows or tells the depth of; −1 for those of none."""
    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    grid_thw: tuple[int, int, int]
    places: Int[Tensor, "3 1 tokens"]
    """Of all tokens, with all slice pairs there."""

    @property
    def num_pairs(self) -> int:
        """Slice pairs of the volume."""
        return self.grid_thw[0]

    def with_pairs(self, kept: Kept) -> Bool[Tensor, "tokens"]:
        """Which tokens are there when only these slice pairs are."""
        there = torch.tensor([-1, *sorted(kept)], device=self.pair_of.device)
        return torch.isin(self.pair_of, there)


def report_on_scan(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: ReadReport,
    visual: Visual,
    positions: Positions,
) -> ReportOnScan:
    """Puts a report behind a scan, to ask how probable it is.

    Raises:
        CtscribeError: ``E_REPORT`` when the report is empty.
    """
    ids, labels = encode_example(
        tokenizer, report.answer, visual.grid_thw, visual.cue, markers=visual.markers
    )
    with torch.inference_mode():
        tokens = visual_tokens_of(qwen, [visual])
    input_ids = torch.tensor(ids, device=tokens.device)
    places = position_ids(
        qwen.config,
        input_ids[None],
        torch.ones_like(input_ids)[None],
        torch.tensor([visual.grid_thw]),
        torch.tensor([visual.position_mm], device=tokens.device),
        positions,
    )
    start = next(i for i, label in enumerate(labels) if label != IGNORED)
    pairs = pair_of_tokens(tokenizer, visual.grid_thw, visual.cue, visual.markers)
    pair_of = torch.tensor(pairs + [-1] * (len(ids) - len(pairs)), device=tokens.device)
    return ReportOnScan(input_ids, start, pair_of, tokens, visual.grid_thw, places)


class PairEvidence(Row):
    """Two neighbouring slices that the tower reads as one, or a plane of an encoder's grid."""

    pair: int
    """Place among the volume's pairs or planes, from 0."""
    slice_indices: tuple[int, ...]
    """z indices of the volume as prepared; of a plane those that are shown in it, or the nearest
    one, or none where it lies beside the scan."""
    position_mm: tuple[float, ...]
    """Superior coordinates, RAS+."""
    drop: float
    """Nats by which the sentence becomes less probable without them."""
    attention: float | None
    """Share of the finding's attention, where the sentence affirms one and there are queries."""
    box_px: BoxPx | None
    """Where attention is."""
    box_mm: BoxMm | None = None
    """The same, RAS+, outer edges; known of a plane alone."""


class SentenceEvidence(Row):
    """A sentence with its slices, those it rests on most first."""

    section: Literal["findings", "impression"]
    text: str
    findings: tuple[str, ...]
    """That it affirms."""
    log_prob: float
    """Of its tokens given all slices, natural log."""
    num_tokens: int
    particular: bool
    """False for boilerplate, which rests on no particular slice."""
    pairs: tuple[PairEvidence, ...]


class EvidenceRow(Row):
    """One report."""

    scan_id: str
    patient_id: str
    volume_name: str
    sentences: tuple[SentenceEvidence, ...]


def explain(
    qwen: PreTrainedModel,
    report: ReadReport,
    on_scan: ReportOnScan,
    layer_at: FindLayer,
) -> tuple[SentenceEvidence, ...]:
    """Evidence for every sentence of a report, which ``qwen`` need not have written.

    ``qwen`` says how probable the sentences of the report behind its scan are, ``layer_at`` where
    its slice pairs or planes lie.
    """
    scores = log_probs(qwen, on_scan, leave_one_out(on_scan.num_pairs))
    total, drops = drops_of(scores, report)
    located = find_in_scan(qwen, on_scan)
    evidence = []
    for sentence, log_prob, drop, members in zip(
        report.sentences, total.tolist(), drops, report.tokens, strict=True
    ):
        shares = attention_of(sentence, located)
        evidence.append(
            SentenceEvidence(
                section=sentence.section,
                text=sentence.text,
                findings=tuple(FINDINGS[i] for i in sentence.present),
                log_prob=log_prob,
                num_tokens=int(members.sum()),
                particular=bool(drop.max() > PARTICULAR_NATS),
                pairs=tuple(
                    PairEvidence(
                        pair=pair,
                        drop=float(drop[pair]),
                        attention=None if shares is None else float(shares[pair]),
                        **asdict(layer_at(pair, box_of(sentence, located, pair, side_px=1))),
                    )
                    for pair in rank_pairs(drop, shares)
                ),
            )
        )
    return tuple(evidence)


def leave_one_out(num_pairs: int) -> list[Kept]:
    """All slice pairs, then all but the first, all but the second, and so on."""
    every = frozenset(range(num_pairs))
    return [every, *(every - {pair} for pair in range(num_pairs))]


@torch.inference_mode()
def log_probs(
    qwen: PreTrainedModel, on_scan: ReportOnScan, kept: Sequence[Kept]
) -> Float[Tensor, "sets answer_tokens"]:
    """Log-probability of each token of the answer, its end included, for each set of pairs kept.

    Without a pair the rest stands where it lies in the body. Where a prompt tells depth in words,
    those of the pair are gone too, and it is the prompt of a scan that never had it.
    """
    answer = on_scan.input_ids[on_scan.answer_start :]
    result = torch.empty(len(kept), len(answer))
    at_once = max(1, min(SETS_PER_CALL, _TOKENS_PER_CALL // len(on_scan.input_ids)))
    lengths = [int(on_scan.with_pairs(each).sum()) for each in kept]
    for length in set(lengths):
        same = [i for i, other in enumerate(lengths) if other == length]
        for start in range(0, len(same), at_once):
            rows = same[start : start + at_once]
            result[rows] = _log_probs(qwen, on_scan, [kept[i] for i in rows], answer)
    return result


def _log_probs(
    qwen: PreTrainedModel,
    on_scan: ReportOnScan,
    kept: Sequence[Kept],
    answer: Int[Tensor, "answer_tokens"],
) -> Float[Tensor, "sets answer_tokens"]:
    """For sets that leave sequences of one length."""
    is_video = on_scan.input_ids == qwen.config.video_token_id
    in_words = bool((on_scan.pair_of[~is_video] >= 0).any())
    inputs, places = [], []
    for each in kept:
        stays = on_scan.with_pairs(each)
        ids, tokens = on_scan.input_ids[stays][None], on_scan.visual_tokens[stays[is_video]]
        grid = torch.tensor([[len(each), *on_scan.grid_thw[1:]]])
        if each:
            tokens = gate_visual_tokens(qwen, tokens, grid).visual_tokens
        inputs.append(language_inputs(qwen, ids, tokens))
        if in_words:  # so that no place is, and text closes up
            untold = torch.zeros(1, len(each))
            everything = torch.ones_like(ids)
            places.append(position_ids(qwen.config, ids, everything, grid, untold, "index"))
        else:
            places.append(on_scan.places[:, :, stays])
    hidden = qwen.model.language_model(
        **stack_inputs(inputs),
        attention_mask=None,
        position_ids=torch.cat(places, dim=1),
        use_cache=False,
    ).last_hidden_state[:, -len(answer) - 1 : -1]
    nats = [cross_entropy(qwen.lm_head(row).float(), answer, reduction="none") for row in hidden]
    return -torch.stack(nats).cpu()


def drops_of(
    scores: Float[Tensor, "sets answer_tokens"], report: ReadReport
) -> tuple[Float[Tensor, "sentences"], Float[Tensor, "sentences pairs"]]:
    """Each sentence's log-probability, and its fall without each slice pair, in nats.

    ``scores`` are `log_probs` of the sets of `leave_one_out`; their last column is the token that
    ends the answer and belongs to no sentence.
    """
    by_sentence = scores[:, :-1] @ report.tokens.float().T
    return by_sentence[0], (by_sentence[0] - by_sentence[1:]).T


def find_in_scan(qwen: PreTrainedModel, on_scan: ReportOnScan) -> LocatedFindings | None:
    """Where the model's finding queries locate the findings of a scan, where it has any."""
    queries = finding_queries_of(qwen)
    if queries is None:
        return None
    with torch.inference_mode():
        return locate_findings(queries.head, on_scan.visual_tokens, on_scan.grid_thw)


def attention_of(
    sentence: ReadSentence, located: LocatedFindings | None
) -> Float[Tensor, "pairs"] | None:
    """Attention of the findings that a sentence affirms, their mean."""
    if located is None or not sentence.present:
        return None
    return located.slices[list(sentence.present)].mean(0).cpu()


def rank_pairs(drop: Float[Tensor, "pairs"], attention: Float[Tensor, "pairs"] | None) -> list[int]:
    """Slice pairs, those a sentence rests on most first: by attention where there is any.

    On phantoms the queries' attention finds lesions more often than leaving slices out does
    (``docs/results/slice_aware.md``).
    """
    order: list[int] = (drop if attention is None else attention).argsort(descending=True).tolist()
    return order


def box_of(
    sentence: ReadSentence, located: LocatedFindings | None, pair: int, side_px: int
) -> BoxPx | None:
    """Around the cells of a slice pair that hold a twentieth of its peak of attention or more.

    Only cells that hang together with the peak count; ``side_px`` is that of a cell.
    """
    if located is None or not sentence.present:
        return None
    cells = located.maps[list(sentence.present), pair].mean(0).cpu().numpy()
    return box_around_peak(cells, _SHARE_OF_PEAK, side_px)


def sentence_rows(
    evidence: Sequence[SentenceEvidence],
    confidences: Sequence[float | None],
    slice_indices: Sequence[int],
) -> tuple[SentenceRow, ...]:
    """The slices each sentence rests on most, and whether it is boilerplate.

    A sentence that affirms a finding is never boilerplate: its finding has slices even where its
    words follow from the words before. ``confidences`` are calibrated, None where not known;
    ``slice_indices`` are the z indices of the frames.
    """
    numbers = {index: number for number, index in enumerate(slice_indices, 1)}
    rows = []
    for each, confidence in zip(evidence, confidences, strict=True):
        boilerplate = not each.particular and not each.findings
        best = each.pairs[0]
        slices = tuple(
            SliceEvidence(numbers.get(index), index, position, best.box_px, best.box_mm)
            for index, position in zip(best.slice_indices, best.position_mm, strict=True)
        )
        shown = () if boilerplate else slices
        rows.append(SentenceRow(each.text, shown, boilerplate, best.drop, confidence))
    return tuple(rows)
