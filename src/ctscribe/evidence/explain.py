"""One report and one volume → what each sentence rests on."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.evidence.leave_out import Kept, Shown, log_probs
from ctscribe.evidence.rows import PairEvidence, SentenceEvidence
from ctscribe.evidence.sentences import ReadReport, Sentence
from ctscribe.model.slice_attention import Seen, attached, look
from ctscribe.model.targets import CELL_PX
from ctscribe.reports.findings import FINDINGS

PARTICULAR_NATS = 0.3
"""A sentence that loses less than this by any slice pair's absence is boilerplate. On phantoms,
6 % of stock sentences lose more, and 54 % of those that state a finding."""
_SHARE_OF_PEAK = 0.05

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of a frame, the last two exclusive."""


def leave_one_out(num_pairs: int) -> list[Kept]:
    """All slice pairs, then all but the first, all but the second, and so on."""
    every = frozenset(range(num_pairs))
    return [every, *(every - {pair} for pair in range(num_pairs))]


def drops_of(
    scores: Float[Tensor, "sets answer_tokens"], report: ReadReport
) -> tuple[Float[Tensor, "sentences"], Float[Tensor, "sentences pairs"]]:
    """Each sentence's log-probability, and its fall without each slice pair, in nats.

    Args:
        scores: `leave_out.log_probs` of the sets of `leave_one_out`.
        report: Whose tokens they are; behind them comes the token that ends the answer.
    """
    by_sentence = scores[:, :-1] @ report.tokens.float().T
    return by_sentence[0], (by_sentence[0] - by_sentence[1:]).T


def explain(
    qwen: Qwen2_5_VLForConditionalGeneration,
    report: ReadReport,
    shown: Shown,
    slice_indices: Sequence[int],
    position_mm: Sequence[float],
) -> tuple[SentenceEvidence, ...]:
    """Evidence for every sentence.

    Args:
        qwen: The model that wrote the report, or another that is asked about it.
        report: Its sentences.
        shown: The same report behind its volume.
        slice_indices: z index of each frame.
        position_mm: Superior coordinate of each frame.
    """
    scores = log_probs(qwen, shown, leave_one_out(shown.num_pairs))
    total, drops = drops_of(scores, report)
    seen = see(qwen, shown)
    pairs = list(zip(slice_indices[::2], slice_indices[1::2], strict=True))
    places = list(zip(position_mm[::2], position_mm[1::2], strict=True))
    evidence = []
    for sentence, log_prob, drop, members in zip(
        report.sentences, total.tolist(), drops, report.tokens, strict=True
    ):
        shares = attention_of(sentence, seen)
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
                        slice_indices=pairs[pair],
                        position_mm=places[pair],
                        drop=float(drop[pair]),
                        attention=None if shares is None else float(shares[pair]),
                        box_px=box_of(sentence, seen, pair),
                    )
                    for pair in rank_pairs(drop, shares)
                ),
            )
        )
    return tuple(evidence)


def see(qwen: Qwen2_5_VLForConditionalGeneration, shown: Shown) -> Seen | None:
    """What the model's finding queries see in a volume, where it has any."""
    queries = attached(qwen)
    if queries is None:
        return None
    with torch.inference_mode():
        return look(queries.head, shown.visual_tokens, shown.grid_thw)


def attention_of(sentence: Sentence, seen: Seen | None) -> Float[Tensor, "pairs"] | None:
    """Attention of the findings that a sentence affirms, their mean."""
    if seen is None or not sentence.present:
        return None
    return seen.slices[list(sentence.present)].mean(0).cpu()


def rank_pairs(drop: Float[Tensor, "pairs"], attention: Float[Tensor, "pairs"] | None) -> list[int]:
    """Slice pairs, those a sentence rests on most first: by attention where there is any.

    On phantoms the queries' attention finds lesions more often than leaving slices out does
    (``docs/results/slice_aware.md``).
    """
    order: list[int] = (drop if attention is None else attention).argsort(descending=True).tolist()
    return order


def box_of(sentence: Sentence, seen: Seen | None, pair: int) -> Box | None:
    """Around the cells of a slice pair that hold a twentieth of its peak of attention or more.

    Only cells that hang together with the peak count.
    """
    if seen is None or not sentence.present:
        return None
    return box_of_map(seen.maps[list(sentence.present), pair].mean(0).cpu().numpy())


def box_of_map(cells: Float[np.ndarray, "rows columns"]) -> Box:
    """Box in pixels around the piece of a map that holds its peak, cut at a twentieth of it."""
    labels, _ = ndimage.label(cells >= _SHARE_OF_PEAK * cells.max(), np.ones((3, 3)))
    peak = labels[np.unravel_index(cells.argmax(), cells.shape)]
    rows, columns = ndimage.find_objects(labels)[peak - 1]
    return (
        columns.start * CELL_PX,
        rows.start * CELL_PX,
        columns.stop * CELL_PX,
        rows.stop * CELL_PX,
    )
