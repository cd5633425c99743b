"""Which slices each sentence of a report rests on.

In: a report split into sentences, and the same report as teacher-forced answer to its scan. Out:
for each sentence its slice pairs, ranked by the finding queries' attention, or by how much the
sentence's log-probability drops when a pair is left out.
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
from ctscribe.write.token_planes import LocatePlane


@final
@dataclass(frozen=True)
class ReadSentence:
    """A sentence, and which of the 18 findings it affirms and denies."""

    section: Literal["findings", "impression"]
    text: str
    present: tuple[int, ...]
    """Indices into `FINDINGS` of those it affirms."""
    absent: tuple[int, ...]
    """Indices of those it denies."""


@final
@dataclass(frozen=True)
class ReadReport:
    """A report as the model would answer it, split into sentences."""

    answer: str
    sentences: tuple[ReadSentence, ...]
    tokens: Bool[Tensor, "sentences tokens"]
    """Which of the answer's tokens belong to each sentence."""


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
"""Sets of slice pairs that go through the model as one batch."""
_TOKENS_PER_CALL = 16 * 4096
"""Limits the batch further where a scan has many tokens, as another encoder's grid has."""

PARTICULAR_NATS = 0.3
"""A sentence is boilerplate when its log-probability drops by less than this whichever slice pair
is left out. On phantoms, 6 % of stock sentences drop by more, and 54 % of those that state a
finding."""

_SHARE_OF_PEAK = 0.05
"""See `box_of`."""

KeptPairs = frozenset[int]
"""Numbers of the slice pairs that are not left out, from 0 in frame order."""


@final
@dataclass(frozen=True)
class ForcedReport:
    """A report as the teacher-forced answer to the prompt of one scan."""

    input_ids: Int[Tensor, "tokens"]
    answer_start: int
    """Index of the answer's first token."""
    pair_of: Int[Tensor, "tokens"]
    """Slice pair that each token belongs to, visual or depth marker; −1 for all others."""
    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    grid_thw: tuple[int, int, int]
    position_ids: Int[Tensor, "3 1 tokens"]
    """With no slice pair left out."""

    @property
    def num_pairs(self) -> int:
        """Slice pairs of the volume."""
        return self.grid_thw[0]

    def token_mask(self, kept: KeptPairs) -> Bool[Tensor, "tokens"]:
        """Which tokens remain when only these slice pairs are kept."""
        remaining = torch.tensor([-1, *sorted(kept)], device=self.pair_of.device)
        return torch.isin(self.pair_of, remaining)


def teacher_force(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: ReadReport,
    visual: Visual,
    positions: Positions,
) -> ForcedReport:
    """Builds the input whose logits say how probable a report is given a scan.

    Raises:
        CtscribeError: ``E_REPORT`` when the report is empty.
    """
    ids, labels = encode_example(
        tokenizer, report.answer, visual.grid_thw, visual.cue, markers=visual.markers
    )
    with torch.inference_mode():
        tokens = visual_tokens_of(qwen, [visual])
    input_ids = torch.tensor(ids, device=tokens.device)
    place = position_ids(
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
    return ForcedReport(input_ids, start, pair_of, tokens, visual.grid_thw, place)


class PairEvidence(Row):
    """A slice pair, or a plane of another encoder's grid, as evidence for one sentence."""

    pair: int
    """Number of the pair or plane, from 0 in frame order."""
    slice_indices: tuple[int, ...]
    """z indices in the volume as prepared. Of a plane: the frames that lie in it, else the nearest
    slice; none where the plane lies outside the scan."""
    position_mm: tuple[float, ...]
    """Superior coordinates, RAS+."""
    drop: float
    """By how many nats the sentence's log-probability drops when this pair is left out."""
    attention: float | None
    """Its share of the attention of the findings that the sentence affirms; None where it affirms
    none, or the model has no finding queries."""
    box_px: BoxPx | None
    """Around the peak of that attention."""
    box_mm: BoxMm | None = None
    """The same box in mm, RAS+, outer edges; None for slice pairs."""


class SentenceEvidence(Row):
    """A sentence with its slices, those it rests on most first."""

    section: Literal["findings", "impression"]
    text: str
    findings: tuple[str, ...]
    """Those it affirms."""
    log_prob: float
    """Sum over its tokens, given all slices, in nats."""
    num_tokens: int
    particular: bool
    """Whether it depends on a particular slice pair; see `PARTICULAR_NATS`."""
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
    forced: ForcedReport,
    locate_plane: LocatePlane,
) -> tuple[SentenceEvidence, ...]:
    """Evidence for every sentence of a report, which ``qwen`` need not have written.

    Args:
        qwen: Scores the report with and without each slice pair.
        report: The sentences.
        forced: The same report, teacher-forced on its scan.
        locate_plane: Where slice pairs or planes lie in the scan.
    """
    scores = log_probs(qwen, forced, leave_one_out(forced.num_pairs))
    total, drops = log_prob_drops(scores, report)
    located = locate_in_scan(qwen, forced)
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
                        **asdict(locate_plane(pair, box_of(sentence, located, pair, side_px=1))),
                    )
                    for pair in rank_pairs(drop, shares)
                ),
            )
        )
    return tuple(evidence)


def leave_one_out(num_pairs: int) -> list[KeptPairs]:
    """The set of all slice pairs, then for each pair the set without it."""
    every = frozenset(range(num_pairs))
    return [every, *(every - {pair} for pair in range(num_pairs))]


@torch.inference_mode()
def log_probs(
    qwen: PreTrainedModel, forced: ForcedReport, kept: Sequence[KeptPairs]
) -> Float[Tensor, "sets answer_tokens"]:
    """Log-probability of each answer token, end token included, for each set of kept slice pairs.

    A pair is left out by removing its visual tokens. The other tokens keep their position ids. In
    families whose prompt states each pair's depth as text (Qwen3-VL), that text is removed too and
    the position ids are those of the shorter prompt.
    """
    answer = forced.input_ids[forced.answer_start :]
    result = torch.empty(len(kept), len(answer))
    at_once = max(1, min(SETS_PER_CALL, _TOKENS_PER_CALL // len(forced.input_ids)))
    lengths = [int(forced.token_mask(each).sum()) for each in kept]
    for length in set(lengths):
        same = [i for i, other in enumerate(lengths) if other == length]
        for start in range(0, len(same), at_once):
            rows = same[start : start + at_once]
            result[rows] = _log_probs(qwen, forced, [kept[i] for i in rows], answer)
    return result


def _log_probs(
    qwen: PreTrainedModel,
    forced: ForcedReport,
    kept: Sequence[KeptPairs],
    answer: Int[Tensor, "answer_tokens"],
) -> Float[Tensor, "sets answer_tokens"]:
    """`log_probs` for sets that leave sequences of equal length, as one batch."""
    is_video = forced.input_ids == qwen.config.video_token_id
    depth_is_text = bool((forced.pair_of[~is_video] >= 0).any())
    inputs, places = [], []
    for each in kept:
        mask = forced.token_mask(each)
        ids, tokens = forced.input_ids[mask][None], forced.visual_tokens[mask[is_video]]
        grid = torch.tensor([[len(each), *forced.grid_thw[1:]]])
        if each:
            tokens = gate_visual_tokens(qwen, tokens, grid).visual_tokens
        inputs.append(language_inputs(qwen, ids, tokens))
        if depth_is_text:
            unused_mm = torch.zeros(1, len(each))
            everything = torch.ones_like(ids)
            places.append(position_ids(qwen.config, ids, everything, grid, unused_mm, "index"))
        else:
            places.append(forced.position_ids[:, :, mask])
    hidden = qwen.model.language_model(
        **stack_inputs(inputs),
        attention_mask=None,
        position_ids=torch.cat(places, dim=1),
        use_cache=False,
    ).last_hidden_state[:, -len(answer) - 1 : -1]
    nats = [cross_entropy(qwen.lm_head(row).float(), answer, reduction="none") for row in hidden]
    return -torch.stack(nats).cpu()


def log_prob_drops(
    scores: Float[Tensor, "sets answer_tokens"], report: ReadReport
) -> tuple[Float[Tensor, "sentences"], Float[Tensor, "sentences pairs"]]:
    """Each sentence's log-probability, and how much it drops without each slice pair, in nats.

    ``scores`` are the `log_probs` of the sets of `leave_one_out`. Their last column is the answer's
    end token, which belongs to no sentence.
    """
    by_sentence = scores[:, :-1] @ report.tokens.float().T
    return by_sentence[0], (by_sentence[0] - by_sentence[1:]).T


def locate_in_scan(qwen: PreTrainedModel, forced: ForcedReport) -> LocatedFindings | None:
    """Where the finding queries see each finding; None where the model has no queries."""
    queries = finding_queries_of(qwen)
    if queries is None:
        return None
    with torch.inference_mode():
        return locate_findings(queries.head, forced.visual_tokens, forced.grid_thw)


def attention_of(
    sentence: ReadSentence, located: LocatedFindings | None
) -> Float[Tensor, "pairs"] | None:
    """Mean attention of the findings that a sentence affirms; None where it affirms none."""
    if located is None or not sentence.present:
        return None
    return located.slices[list(sentence.present)].mean(0).cpu()


def rank_pairs(drop: Float[Tensor, "pairs"], attention: Float[Tensor, "pairs"] | None) -> list[int]:
    """Ranks slice pairs by attention where it is known, else by drop; highest first.

    On phantoms attention finds lesions more often than leaving slices out does
    (``docs/results/slice_aware.md``).
    """
    order: list[int] = (drop if attention is None else attention).argsort(descending=True).tolist()
    return order


def box_of(
    sentence: ReadSentence, located: LocatedFindings | None, pair: int, side_px: int
) -> BoxPx | None:
    """A box around the peak of a slice pair's attention.

    It encloses the cells that are connected to the peak and hold at least a twentieth of its
    attention. ``side_px`` is the side of a cell.
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
    """Rows of a draft: for each sentence the best-ranked slices, and whether it is boilerplate.

    A sentence that affirms a finding is never boilerplate, even where its words could be predicted
    from those before. ``confidences`` are calibrated probabilities, None where unknown;
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
