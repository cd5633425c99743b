"""RadEval's metrics, which read whole reports by models of their own, with our intervals.

In: what systems wrote, and the references. Out: one number per report and metric; means of them
have intervals by patient and are compared as our own scores are, which RadEval does not do. RadEval
(``ctscribe[radeval]``, MIT) and the weights must be there already: no hub is asked for anything.
Only RadFact-CT reaches out, to the server that judges statements, when it is asked for.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import brief
from ctscribe.base.recipe import RadEvalMetric
from ctscribe.measure.clinical import ratio
from ctscribe.measure.intervals import CORPUS, Jackknife, with_interval

ReportValues = Mapping[str, Float64[np.ndarray, "scans"]]
"""RadEval's key → one number per report, NaN where it gave none."""


@final
@dataclass(frozen=True)
class ReportScorer:
    """One of RadEval's metrics: what it gives per report, and what it runs on."""

    keys: tuple[str, ...]
    weights: tuple[str, ...]
    """On Hugging Face's hub."""
    beside: str = ""
    """What else must be there."""

    @property
    def needs(self) -> str:
        """What must be where on this machine."""
        from huggingface_hub.constants import HF_HUB_CACHE

        weights = f"{' and '.join(self.weights)} in {HF_HUB_CACHE}" if self.weights else ""
        return ", and ".join(filter(None, (weights, self.beside)))


SCORERS: dict[RadEvalMetric, ReportScorer] = {
    "green": ReportScorer(("green",), ("StanfordAIMI/GREEN-radllama2-7b",)),
    "ratescore": ReportScorer(
        ("ratescore",), ("Angelakeke/RaTE-NER-Deberta", "FremyCompany/BioLORD-2023-C")
    ),
    "radgraph": ReportScorer(
        ("radgraph_simple", "radgraph_partial", "radgraph_complete"),
        ("the encoder of radgraph-xl",),
        "radgraph-xl.tar.gz of StanfordAIMI/RRG_scorers unpacked in "
        "~/.cache/radgraph/0.1.18/radgraph-xl",
    ),
    "radfact_ct": ReportScorer(
        ("radfact_ct_precision", "radfact_ct_recall", "radfact_ct_f1"),
        (),
        "a server that speaks OpenAI's protocol (OPENAI_BASE_URL, OPENAI_API_KEY)",
    ),
    "f1radbert_ct": ReportScorer(("f1radbert_ct_sample_acc",), ("IAMJB/RadBERT-CT",)),
    "bertscore": ReportScorer(("bertscore",), ("distilbert-base-uncased",)),
}


def keys_of(metrics: Sequence[RadEvalMetric]) -> list[str]:
    """What these metrics give per report, in order."""
    return [key for metric in metrics for key in SCORERS[metric].keys]


def score_systems(
    metrics: Sequence[RadEvalMetric],
    systems: Sequence[Sequence[str]],
    references: Sequence[str],
) -> list[ReportValues]:
    """Scores every report of every system by RadEval's metrics; each model is loaded once.

    A pair of texts that occurs twice is scored once. An empty report is not asked about: it
    scores 0, as everywhere.

    Args:
        metrics: Without them nothing is imported.
        systems: What each system wrote for each reference, in order.
        references: None empty.

    Returns:
        Of each system the numbers of its reports.

    Raises:
        CtscribeError: ``E_RADEVAL`` without RadEval, without a metric's weights, or where it does
            not give one number for each report.
    """
    pairs = [[*zip(texts, references, strict=True)] for texts in systems]
    distinct = [*dict.fromkeys(pair for each in pairs for pair in each if pair[0].strip())]
    values: list[dict[str, np.ndarray]] = [{} for _ in systems]
    for metric in metrics:
        for key, numbers in _ask(metric, distinct).items():
            known = dict(zip(distinct, numbers, strict=True))
            for system, each in zip(values, pairs, strict=True):
                system[key] = np.array([known.get(pair, 0.0) for pair in each], dtype=np.float64)
    return [*values]


def _ask(metric: RadEvalMetric, pairs: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    scorer = SCORERS[metric]
    # RadEval silences all warnings for good and prints to standard output, where tables go.
    with _without_hub(), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        radeval = _import_radeval()
        try:
            evaluate = radeval(metrics=[metric], per_sample=True, show_progress=False)
        except Exception as error:
            raise _bad(metric, f"it does not load ({brief(error)})") from error
        try:
            found = evaluate(refs=[true for _, true in pairs], hyps=[text for text, _ in pairs])
        except Exception as error:
            # what it says may quote a report
            raise _bad(metric, f"it ended with {type(error).__name__}") from error
    # without a pair, RadEval answers with nothing at all
    told = found if pairs else {key: [] for key in scorer.keys}
    return {key: _numbers(metric, told.get(key), len(pairs)) for key in scorer.keys}


def _import_radeval() -> Any:  # noqa: ANN401 - RadEval has no types
    try:
        import radeval  # type: ignore[import-not-found]
        from radeval import RadEval
    except ImportError as error:
        raise CtscribeError(
            "E_RADEVAL", f"evaluate.radeval needs RadEval 2, but it does not import ({error})"
        ) from error
    # RadEval 2.2 imports parts of itself by the name of its earlier releases.
    sys.modules.setdefault("RadEval", radeval)
    return RadEval


def _numbers(metric: RadEvalMetric, told: object, count: int) -> list[float]:
    """One number per report; what is none, such as an answer that GREEN cannot read, is NaN."""
    if not isinstance(told, list) or len(told) != count:
        raise _bad(metric, f"it did not give one number for each of {count} reports")
    try:
        return [np.nan if value is None else float(value) for value in told]
    except (TypeError, ValueError) as error:
        raise _bad(metric, "it gave something else than numbers") from error


def _bad(metric: RadEvalMetric, what: str) -> CtscribeError:
    return CtscribeError(
        "E_RADEVAL", f"RadEval's {metric} needs {SCORERS[metric].needs}, but {what}"
    )


@contextmanager
def _without_hub() -> Iterator[None]:
    """Inside, Hugging Face's libraries read what is on disk and ask for nothing."""
    from huggingface_hub import constants

    told, known = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = known
        if told is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = told


def value_statistics(values: ReportValues) -> Float64[np.ndarray, "scans columns"]:
    """Sufficient statistics of each report: every number, 0 where there is none, then which are."""
    numbers = np.stack([*values.values()], axis=1)
    defined = np.isfinite(numbers)
    return np.hstack([np.where(defined, numbers, 0.0), defined])


def mean_values(
    totals: Float64[np.ndarray, "rows columns"], keys: Sequence[str]
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """Key → mean over reports with a number, from sums of `value_statistics`; one per row."""
    sums, counts = np.hsplit(totals, 2)
    return dict(zip(keys, ratio(sums, counts).T, strict=True))


def value_table(values: ReportValues, jackknife: Jackknife) -> dict[str, dict[str, Any]]:
    """Key → mean, its interval over patients, its signature, and ``unscored`` reports."""
    if not values:
        return {}
    point, without = (
        mean_values(sums, [*values]) for sums in jackknife.sums(value_statistics(values))
    )
    weights = {
        key: "+".join(scorer.weights) or "server"
        for scorer in SCORERS.values()
        for key in scorer.keys
    }
    return {
        key: with_interval(point[key], without[key], CORPUS)
        | {
            "signature": f"{key}|mean over reports, 0 for an empty one|RadEval {_version()}|"
            f"by:{weights[key]}|scans:{len(numbers)}",
            "unscored": int((~np.isfinite(numbers)).sum()),
        }
        for key, numbers in values.items()
    }


def _version() -> str:
    try:
        return version("radeval")
    except PackageNotFoundError:
        return "of unknown version"
