"""The tuning stage: chooses the cue threshold and contrastive decoding settings of a run.

In: a run and prepared scans. Settings are chosen on validation, by the F1 of the labels, among
those that keep BLEU-4 and precision above a floor. Out, in the run's folder: ``tuned.json``, which
later reports are written by; ``tuned.png``; and under ``tune/`` the reports of every try.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from matplotlib.figure import Figure

from ctscribe.base.figures import MARKERS, new_figure, write_figure
from ctscribe.base.files import ProgressCallback, write_json
from ctscribe.base.locks import many_writers, one_writer
from ctscribe.base.recipe import GenerateConfig
from ctscribe.base.runs import is_made_of
from ctscribe.base.workers import ALONE, Share, wait_until_whole
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.features import store_together
from ctscribe.learn.model.finding_queries import finding_queries_of
from ctscribe.measure.calibrate import fit_findings
from ctscribe.measure.scans import ScanReport, as_reports, match_predictions
from ctscribe.measure.statistics import scan_statistics, score_sums
from ctscribe.write.calibration import FILE, TUNED, Calibration, read_calibration
from ctscribe.write.generate import generate_together
from ctscribe.write.writer import ReportWriter

_WEIGHTS = (0.125, 0.25, 0.5, 1.0)
_PLAUSIBILITIES = (0.1, 0.3, 0.6)
_THRESHOLD_STEPS = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
"""Cue thresholds to try, relative to the one at which the queries' own labels have the best F1."""
_NEAR = 0.01
"""Thresholds whose F1 is this close to the best count as equally good."""
_SLACK = 0.01
"""How much BLEU-4 and precision may lose where no floor is given."""
_REPORTED = ("coverage", "precision", "f1", "f1_macro", "label_accuracy", "bleu_4", "rouge_l")


@final
@dataclass(frozen=True)
class Try:
    """One setting, and its scores on validation."""

    generate: GenerateConfig
    cue_threshold: float | None
    """None for a run without cues from finding queries."""
    scores: dict[str, float]

    def keeps(self, floors: dict[str, float]) -> bool:
        """Whether no score is below its floor."""
        return all(self.scores[name] >= floor for name, floor in floors.items())


def tune(
    writer: ReportWriter,
    prepared: Prepared,
    *,
    least_bleu_4: float | None = None,
    least_precision: float | None = None,
    share: Share = ALONE,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Searches the cue threshold, then the contrast's kind and weight γ, then its plausibility α.

    The recipe's ``generate.contrast`` limits the kinds; ``none`` tries ``others`` and ``mean``. Of
    the thresholds with nearly the best F1 the one is chosen at which Coverage and precision are
    closest, so that as many findings are stated as there are. A floor that is given applies to
    thresholds too, if any reaches it; the default floor is the score without contrast, less 0.01.

    With a ``share`` this process writes its part of each try's reports and waits for the others.
    All processes make the same choice, and the first one writes it. ``progress`` is called with
    (tries done, most tries needed).

    Returns:
        ``tuned.json``: ``generate``, ``cue_threshold``, ``floors`` and all ``tries``.

    Raises:
        CtscribeError: As `calibrate` where the run is told findings; ``E_EMPTY_SPLIT``,
            ``E_PREPARED``, ``E_BUSY``, ``E_SHARE``.
    """
    prepared.require(writer.recipe)
    with many_writers(writer.run_dir) if share[1] > 1 else one_writer(writer.run_dir):
        search = _Search(writer, prepared, share, progress)
        given = {"bleu_4": least_bleu_4, "precision": least_precision}
        asked = {name: floor for name, floor in given.items() if floor is not None}
        best = search.thresholds(asked)
        floors = {name: best.scores[name] - _SLACK for name in given} | asked
        best = search.contrasts(best, floors)
        found = {
            "weights_sha256": writer.weights_sha256,
            "generate": best.generate.model_dump(mode="json"),
            "cue_threshold": best.cue_threshold,
            "floors": floors,
            "num_scans": len(search.truth),
            "inputs": {"validation": prepared.sha256(prepared.scans("validation"))},
            "tries": [_try_row(each) for each in search.tries],
        }
        if share[0] == 0:
            _keep(writer, search, best, found)
        return found


def _keep(writer: ReportWriter, search: "_Search", best: Try, found: dict[str, Any]) -> None:
    if best.cue_threshold is not None:
        fitted = search.at(best.cue_threshold)
        write_json(writer.run_dir / FILE, {"calibration": fitted.model_dump(mode="json")})
    figure = draw_tries(search.tries, best, found["floors"])
    write_figure(writer.run_dir / "tuned.png", figure)
    write_json(writer.run_dir / TUNED, found)


def _try_row(each: Try) -> dict[str, Any]:
    knobs = each.generate.model_dump(
        mode="json", include={"contrast", "contrast_weight", "plausibility", "num_negatives"}
    )
    return {**knobs, "cue_threshold": each.cue_threshold, **each.scores}


def _fit_together(writer: ReportWriter, prepared: Prepared, share: Share) -> Calibration | None:
    """The calibration of a run with cues, None for others; fitted by the first process.

    The other processes read it, so that rounding on another machine cannot lead to another choice.
    """
    if not writer.recipe.model.cues or finding_queries_of(writer.qwen) is None:
        return None
    path = writer.run_dir / "tune" / FILE
    inputs = {"validation": prepared.sha256(prepared.scans("validation"))}

    def read() -> Calibration | None:
        is_there = is_made_of(path, inputs)
        return read_calibration(path.parent, writer.weights_sha256) if is_there else None

    if share[0] == 0 and read() is None:
        fitted = fit_findings(writer, prepared, "f1")
        write_json(path, {"calibration": fitted.model_dump(mode="json"), "inputs": inputs})
    wait_until_whole(path, lambda: int(read() is None))
    return read()


@final
class _Search:
    """Tries settings on the validation scans; reports of earlier tries are reused."""

    def __init__(
        self, writer: ReportWriter, prepared: Prepared, share: Share, progress: ProgressCallback
    ) -> None:
        self._writer, self._prepared, self._share = writer, prepared, share
        self._progress = progress
        scans = prepared.scans("validation")
        self.truth: list[ScanReport] = as_reports(scans)
        store_together(writer.qwen, prepared, scans)
        self.tries: list[Try] = []
        asked = writer.recipe.generate.contrast
        self._kinds = ("others", "mean") if asked == "none" else (asked,)
        self._fitted = _fit_together(writer, prepared, share)
        thresholds = len(_THRESHOLD_STEPS) if self._fitted else 1
        self._most = thresholds + len(self._kinds) * len(_WEIGHTS) + len(_PLAUSIBILITIES) - 1
        begun = len([*(writer.run_dir / "tune").glob("*.jsonl")])
        progress(max(0, begun - 1), self._most)  # the last one may be cut

    def at(self, cue_threshold: float) -> Calibration:
        """The run's calibration with another cue threshold."""
        assert self._fitted is not None  # only runs with cues try thresholds
        return self._fitted.model_copy(update={"cue_threshold": cue_threshold})

    def thresholds(self, floors: dict[str, float]) -> Try:
        """The best cue threshold, without contrast; see `tune`."""
        plain = self._writer.recipe.generate.model_copy(update={"contrast": "none"})
        if self._fitted is None:
            return self._attempt(plain, None)
        middle = self._fitted.threshold
        steps = [round(min(max(middle + step, 0.05), 0.95), 3) for step in _THRESHOLD_STEPS]
        tries = [self._attempt(plain, step) for step in dict.fromkeys(steps)]
        kept = [each for each in tries if each.keeps(floors)] or tries
        least = _best(kept).scores["f1"] - _NEAR
        near = [each for each in kept if each.scores["f1"] >= least]
        return min(near, key=lambda each: abs(each.scores["coverage"] - each.scores["precision"]))

    def contrasts(self, plain: Try, floors: dict[str, float]) -> Try:
        """The best contrast that keeps the floors, or ``plain``: first kind and γ, then α."""
        held = [
            self._attempt(
                plain.generate.model_copy(update={"contrast": kind, "contrast_weight": weight}),
                plain.cue_threshold,
            )
            for kind in self._kinds
            for weight in _WEIGHTS
        ]
        best = _best([plain, *(each for each in held if each.keeps(floors))])
        if best.generate.contrast == "none":
            return best
        again = [
            self._attempt(best.generate.model_copy(update={"plausibility": p}), best.cue_threshold)
            for p in _PLAUSIBILITIES
            if p != best.generate.plausibility
        ]
        return _best([best, *(each for each in again if each.keeps(floors))])

    def _attempt(self, knobs: GenerateConfig, cue_threshold: float | None) -> Try:
        fitted = None if cue_threshold is None else self.at(cue_threshold)
        writer = self._writer.with_settings(knobs, fitted)
        name = f"{knobs.contrast}-{knobs.contrast_weight:g}-{knobs.plausibility:g}-{cue_threshold}"
        path = self._writer.run_dir / "tune" / f"{name}.jsonl"
        rows = generate_together(writer, self._prepared, "validation", path, self._share)
        answers, _ = match_predictions(rows, self.truth)
        profile = writer.recipe.evaluate.profile
        sums = scan_statistics(answers, self.truth, profile).sum(0)
        scores = {name: float(value[0]) for name, value in score_sums(sums[None], profile).items()}
        self.tries.append(Try(knobs, cue_threshold, {name: scores[name] for name in _REPORTED}))
        self._progress(len(self.tries), self._most)
        return self.tries[-1]


def _best(tries: Sequence[Try]) -> Try:
    return max(tries, key=lambda each: each.scores["f1"])


def draw_tries(tries: Sequence[Try], chosen: Try, floors: dict[str, float]) -> Figure:
    """Plots precision over Coverage of every try, a line per kind, and marks floor and choice."""
    figure, (axes,) = new_figure(5.2, 3.8)
    kinds = {"none": "told findings" if chosen.cue_threshold else "plain", "mean": "mean volume"}
    lines: dict[str, list[Try]] = {}
    for each in tries:
        lines.setdefault(each.generate.contrast, []).append(each)
    for (kind, line), (colour, marker) in zip(lines.items(), MARKERS, strict=False):
        line = sorted(line, key=lambda each: each.scores["coverage"])
        at = np.array([[each.scores["coverage"], each.scores["precision"]] for each in line])
        axes.plot(*at.T, color=colour, marker=marker, linewidth=1.2, label=kinds.get(kind, kind))
    place = chosen.scores["coverage"], chosen.scores["precision"]
    axes.plot(*place, marker="o", markersize=14, markerfacecolor="none", color="black")
    axes.axhline(floors["precision"], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="Coverage", ylabel="Precision", title="Tried on validation; circled: chosen")
    axes.legend(frameon=False, title="Held against")
    return figure
