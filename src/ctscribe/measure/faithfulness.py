"""Faithfulness of evidence, compared with the known lesions of phantoms.

In: a run, its reports, and the phantom's ``truth.jsonl``. Out: hit@k of each method that ranks
slice pairs, overlap of boxes with lesions, and deletion and insertion curves. It is measured on
true sentences: those that state exactly one finding, which is present and shown in the slices.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.rows import Lesion, StudyRow, TruthRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.cells import CELLS_PER_SIDE, cell_px, cell_targets
from ctscribe.learn.model.finding_queries import LocatedFindings
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.measure.intervals import RATE, mean_with_interval
from ctscribe.scan.boxes import (
    BoxPx,
    FrameBoxes,
    FrameReach,
    box_in_pixels,
    boxes_in_frames,
    overlap,
    reach_of_frames,
    touches,
)
from ctscribe.text.findings import FINDINGS
from ctscribe.write.evidence import (
    ForcedReport,
    KeptPairs,
    ReadReport,
    attention_of,
    box_of,
    leave_one_out,
    locate_in_scan,
    log_prob_drops,
    log_probs,
)
from ctscribe.write.find_evidence import match_predictions
from ctscribe.write.writer import ReportWriter

METHODS = ("attention", "leave_one_out", "random")
"""Methods of ranking slice pairs: the finding queries' attention, leaving pairs out, chance."""

TOP = (1, 3)
"""hit@k asks whether a true slice pair is among the first k."""


@final
@dataclass(frozen=True)
class Truth:
    """A phantom's lesions in the frames that are shown."""

    boxes: FrameBoxes
    findings: tuple[int, ...]
    """Index into `FINDINGS` of each box."""
    reach: FrameReach
    frame_size_px: tuple[int, int]
    cell_px: int
    """Side of the cells in which a lesion counts as shown."""

    def pairs_with(self, finding: int) -> Bool[np.ndarray, "pairs"]:
        """Slice pairs that show a lesion of this finding."""
        targets = cell_targets(
            self.boxes, self.findings, self.reach, self.frame_size_px, side_px=self.cell_px
        )
        shown = targets[..., finding].reshape(len(self.reach) // 2, -1)
        return np.asarray(shown.max(1) > 0)

    def boxes_in(self, finding: int, pair: int) -> list[BoxPx]:
        """This finding's boxes in a slice pair, in pixels, cut to the frame."""
        frames = self.reach[2 * pair : 2 * pair + 2]
        shown = (
            box_in_pixels(box, self.frame_size_px)
            for box, named in zip(self.boxes, self.findings, strict=True)
            if named == finding and touches(box, frames).any()
        )
        return [box for box in shown if box is not None]


@final
@dataclass(frozen=True)
class Checked:
    """One true sentence: where each method's ranking meets the truth."""

    finding: int
    num_pairs: int
    num_true: int
    """Slice pairs that show the finding."""
    rank: Mapping[str, int]
    """Method → rank, from 1, of the first pair that shows the finding."""
    overlap: Mapping[str, float]
    """IoU of the box in the best-ranked true pair with the lesion that overlaps it most."""
    deletion: Mapping[str, tuple[float, ...]]
    """Log-probability without the first k pairs of the ranking, for k from 0 to all."""
    insertion: Mapping[str, tuple[float, ...]]
    """Log-probability with only the first k pairs."""


def check_faithfulness(
    writer: ReportWriter,
    prepared: Prepared,
    predictions_path: Path,
    truth_path: Path,
    *,
    limit: int | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Compares a run's evidence for its reports with a phantom's truth; see `summarise`.

    With ``limit`` only the first reports are read. ``progress`` is called with (reports done, all
    reports).

    Raises:
        CtscribeError: As `find_evidence`, and ``E_MISSING`` without a truth.
    """
    matched = match_predictions(prepared, predictions_path)[:limit]
    truths = {row.volume_name: row for row in read_rows(truth_path, TruthRow)}
    store = writer.features(prepared, [study for _, study in matched])
    checked: list[tuple[str, Checked]] = []
    for number, (row, study) in enumerate(matched):
        progress(number, len(matched))
        visual = replace(store.visual(study), cue=row.cue)
        lesions = _lesions(study, truths.get(study.volume_name))
        if writer.recipe.model.encoder is None:
            truth = _in_frames(prepared, study, lesions, cell_px(writer.qwen))
        else:
            truth = _on_grid(study, lesions, visual)
        report = writer.read(row.findings, row.impression)
        if report.sentences:
            forced = writer.teacher_force(report, visual)
            found = check(writer.qwen, report, forced, truth, seed=number)
            checked += [(row.patient_id, each) for each in found]
    progress(len(matched), len(matched))
    return summarise(checked)


def _lesions(study: StudyRow, row: TruthRow | None) -> Sequence[Lesion]:
    if row is None:
        raise CtscribeError(
            "E_MISSING",
            f"the truth must hold every volume of the data set, but lacks {study.volume_name}",
        )
    return row.lesions


def _in_frames(
    prepared: Prepared, study: StudyRow, lesions: Sequence[Lesion], side_px: int
) -> Truth:
    _, height, width, _ = prepared.frames(study).shape
    return Truth(
        boxes_in_frames(study, [lesion.box_mm for lesion in lesions]),
        tuple(FINDINGS.index(lesion.finding) for lesion in lesions),
        reach_of_frames(study),
        (height, width),
        side_px,
    )


def _on_grid(study: StudyRow, lesions: Sequence[Lesion], visual: Visual) -> Truth:
    """The truth on another encoder's grid: its cells as pixels, and half planes as frames."""
    if visual.grid_to_ras is None:
        raise CtscribeError(
            "E_ENCODER",
            "features must say where rows and columns of their grid lie to be compared with "
            f"lesions, but those of {study.volume_name} say it of planes alone",
        )
    side = CELLS_PER_SIDE
    shift = 0.5 / side - 0.5
    to_token = [[0, 0, 1, 0], [0, 1 / side, 0, shift], [1 / side, 0, 0, shift], [0, 0, 0, 1]]
    cell_to_ras = np.array(visual.grid_to_ras) @ np.array(to_token)
    as_frames = study.model_copy(update={"frame_to_ras": cell_to_ras.tolist()})
    planes, rows, columns = visual.grid_thw
    starts = np.arange(2 * planes) / 2 - 0.5
    return Truth(
        boxes_in_frames(as_frames, [lesion.box_mm for lesion in lesions]),
        tuple(FINDINGS.index(lesion.finding) for lesion in lesions),
        np.stack([starts, starts + 0.5], axis=1),
        (rows // MERGE * side, columns // MERGE * side),
        1,
    )


def check(
    qwen: PreTrainedModel,
    report: ReadReport,
    forced: ForcedReport,
    truth: Truth,
    seed: int,
) -> list[Checked]:
    """Checks every true sentence of a report; ``seed`` is for the random rankings and boxes."""
    draw = np.random.default_rng(seed)
    chosen = {
        number: sentence.present[0]
        for number, sentence in enumerate(report.sentences)
        if len(sentence.present) == 1 and truth.pairs_with(sentence.present[0]).any()
    }
    located = locate_in_scan(qwen, forced)
    rankings = _rankings(qwen, report, forced, located, chosen, draw)
    scores = _scores(qwen, forced, rankings.values())
    checked: list[Checked] = []
    for number, finding in chosen.items():
        true, ranking = truth.pairs_with(finding), rankings[number]
        rank = {name: _first_true(order, true) for name, order in ranking.items()}
        boxed_by = "attention" if "attention" in ranking else "leave_one_out"
        pair = ranking[boxed_by][rank[boxed_by] - 1]
        box = box_of(report.sentences[number], located, pair, truth.cell_px)
        members = report.tokens[number].float()
        deletion, insertion = (
            {
                name: tuple(float(scores[kept][:-1] @ members) for kept in steps(order))
                for name, order in ranking.items()
            }
            for steps in (_without_first, _with_first)
        )
        checked.append(
            Checked(
                finding=finding,
                num_pairs=forced.num_pairs,
                num_true=int(true.sum()),
                rank=rank,
                overlap=_overlaps(box, truth.boxes_in(finding, pair), truth.frame_size_px, draw),
                deletion=deletion,
                insertion=insertion,
            )
        )
    return checked


Ranking = Mapping[str, Sequence[int]]
"""Method → its ranking of the slice pairs."""


def _rankings(
    qwen: PreTrainedModel,
    report: ReadReport,
    forced: ForcedReport,
    located: LocatedFindings | None,
    chosen: Iterable[int],
    draw: np.random.Generator,
) -> dict[int, Ranking]:
    """The rankings for each chosen sentence, by its number."""
    _, drops = log_prob_drops(log_probs(qwen, forced, leave_one_out(forced.num_pairs)), report)
    rankings: dict[int, Ranking] = {}
    for number in chosen:
        attention = attention_of(report.sentences[number], located)
        rankings[number] = {
            "leave_one_out": _order(drops[number]),
            "random": draw.permutation(forced.num_pairs).tolist(),
            **({} if attention is None else {"attention": _order(attention)}),
        }
    return rankings


def _order(values: Float[Tensor, "pairs"]) -> list[int]:
    order: list[int] = values.argsort(descending=True).tolist()
    return order


def _first_true(order: Sequence[int], true: Bool[np.ndarray, "pairs"]) -> int:
    return 1 + next(place for place, pair in enumerate(order) if true[pair])


def _without_first(order: Sequence[int]) -> list[KeptPairs]:
    return [frozenset(order[k:]) for k in range(len(order) + 1)]


def _with_first(order: Sequence[int]) -> list[KeptPairs]:
    return [frozenset(order[:k]) for k in range(len(order) + 1)]


def _scores(
    qwen: PreTrainedModel, forced: ForcedReport, rankings: Iterable[Ranking]
) -> dict[KeptPairs, Float[Tensor, "answer_tokens"]]:
    """Log-probabilities of all sets of pairs that the curves need, each computed once."""
    orders = [order for ranking in rankings for order in ranking.values()]
    needed = {kept for order in orders for kept in (*_without_first(order), *_with_first(order))}
    in_order = sorted(needed, key=sorted)
    return dict(zip(in_order, log_probs(qwen, forced, in_order), strict=True)) if needed else {}


def _overlaps(
    box: BoxPx | None,
    lesions: Sequence[BoxPx],
    frame_size_px: tuple[int, int],
    draw: np.random.Generator,
) -> dict[str, float]:
    """IoU with the lesions of the box, and of a box of its size at a random place."""
    if box is None or not lesions:
        return {}
    height, width = frame_size_px
    left = int(draw.integers(width - (box[2] - box[0]) + 1))
    top = int(draw.integers(height - (box[3] - box[1]) + 1))
    moved = (left, top, left + box[2] - box[0], top + box[3] - box[1])
    return {
        "attention": max(overlap(box, lesion) for lesion in lesions),
        "random": max(overlap(moved, lesion) for lesion in lesions),
    }


def summarise(checked: Sequence[tuple[str, Checked]]) -> dict[str, Any]:
    """Means over true sentences, given as (patient, sentence), with intervals over patients.

    Returns:
        ``all`` sentences and ``focal`` ones, whose finding is on at most half of the slice pairs:
        ``hit@1`` and ``hit@3`` per method and by chance, ``overlap`` of boxes, mean ``deletion``
        and ``insertion`` curves in nats; per finding its number and hits.
    """
    focal = [(who, each) for who, each in checked if 2 * each.num_true <= each.num_pairs]
    return {
        "all": _group(checked),
        "focal": _group(focal),
        "per_finding": _per_finding([each for _, each in checked]),
        "use": RESEARCH_USE,
    }


def _group(checked: Sequence[tuple[str, Checked]]) -> dict[str, Any]:
    sentences = [each for _, each in checked]
    methods = [name for name in METHODS if all(name in each.rank for each in sentences)]

    def mean(value: Callable[[Checked], float | None]) -> dict[str, float | None]:
        known = [(who, v) for who, each in checked if (v := value(each)) is not None]
        patients, values = [who for who, _ in known], np.array([v for _, v in known], float)
        return mean_with_interval(values, patients, RATE)

    found: dict[str, Any] = {"sentences": len(sentences), "scans": len({w for w, _ in checked})}
    for k in TOP:
        hits: dict[str, Any] = {
            name: mean(lambda each, name=name, k=k: float(each.rank[name] <= k))  # type: ignore[misc]
            for name in methods
        }
        hits["chance"] = mean(
            lambda each, k=k: hit_by_chance(each.num_pairs, each.num_true, k)  # type: ignore[misc]
        )
        found[f"hit@{k}"] = hits
    found["overlap"] = {
        name: mean(lambda each, name=name: each.overlap.get(name))  # type: ignore[misc]
        for name in ("attention", "random")
    }
    for kind in ("deletion", "insertion"):
        found[kind] = {
            name: np.mean([getattr(each, kind)[name] for each in sentences], axis=0).tolist()
            for name in methods
            if sentences
        }
    return found


def hit_by_chance(num_pairs: int, num_true: int, k: int) -> float:
    """Probability that k slice pairs drawn at random include a true one."""
    return 1 - comb(num_pairs - num_true, k) / comb(num_pairs, k)


def _per_finding(checked: Sequence[Checked]) -> list[dict[str, Any]]:
    rows = []
    for number, finding in enumerate(FINDINGS):
        mine = [each for each in checked if each.finding == number]
        methods = [name for name in METHODS if mine and name in mine[0].rank]
        hits = {
            f"hit@{k}": {
                name: float(np.mean([each.rank[name] <= k for each in mine])) for name in methods
            }
            for k in TOP
        }
        rows.append({"finding": finding, "sentences": len(mine), **hits})
    return rows
