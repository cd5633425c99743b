"""Every score of a set of predictions, with its interval, beside what blindness scores.

In: predictions of any model, references, and training reports for the blind baselines. Out: one
JSON-able dictionary, ``scores.json``. What two systems differ in is `compare`'s.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, ReportedRow, unfinished
from ctscribe.measure.baselines import (
    Baseline,
    Probabilities,
    read_label_head,
    rules_of,
    stated_by,
    strongest_blind,
    write_baselines,
)
from ctscribe.measure.beyond_labels import count_other_findings, count_wrong_places
from ctscribe.measure.breakdown import by_agreement, by_finding, by_stratum
from ctscribe.measure.intervals import Jackknife
from ctscribe.measure.language import Profile, bleu_4, meteor, normalise
from ctscribe.measure.predictions import Noticed, read_predictions
from ctscribe.measure.radeval import ReportValues, score_systems, value_table
from ctscribe.measure.ranking import by_ranking
from ctscribe.measure.references import References
from ctscribe.measure.scans import (
    RULES,
    Answers,
    LabelSource,
    ScanReport,
    Sections,
    as_reports,
    count_scans,
    labelled_text,
    match_predictions,
    one_row_per_scan,
    scored_text,
)
from ctscribe.measure.statistics import (
    Statistics,
    each_scan_statistics,
    language_of_written,
    score_table,
)
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


NUM_CHECKED = 500
"""Reports that are scored twice: sacrebleu takes a millisecond for each."""


def evaluate_predictions(
    predictions_path: Path,
    references: References,
    config: EvaluateConfig,
    source: LabelSource = RULES,
    label_head_path: Path | None = None,
) -> dict[str, Any]:
    """Reads predictions and scores them; see `evaluate`.

    ``n`` gains `References.facts` and `Noticed.facts`, and ``inputs`` names by hash what was scored
    against what.

    Raises:
        CtscribeError: As `read_predictions`, `evaluate` and `read_label_head`.
    """
    studies = references.studies
    noticed = Noticed()
    predictions = read_predictions(predictions_path, studies, references.left_out, noticed)
    head = None if label_head_path is None else read_label_head(label_head_path, studies)
    scores = evaluate(predictions, studies, references.training, config, source, head)
    scores["n"] |= references.facts() | noticed.facts()
    scores["inputs"] = {
        "predictions_sha256": sha256_of_file(predictions_path),
        "references_sha256": references.sha256(),
        "label_head_sha256": label_head_path and sha256_of_file(label_head_path),
    }
    return scores


def evaluate(
    predictions: Sequence[PredictionRow],
    references: Sequence[ReportedRow],
    training: Sequence[ReportedRow] | None,
    config: EvaluateConfig,
    source: LabelSource = RULES,
    label_head: Probabilities | None = None,
) -> dict[str, Any]:
    """Scores predictions once per scan, with intervals over patients and blind baselines.

    Args:
        predictions: At most one report per scan; a missing one counts as empty and is listed.
        references: The studies to be scored; reconstructions of one scan count once.
        training: What the baselines choose reports from; None where there are none.
        source: Reads the findings of what was written, and of references without labels.
        label_head: Probabilities of each scan, ranked, and from 0.5 up said in stock sentences.

    Returns:
        A JSON-able dictionary: ``n``, ``model`` and ``baselines`` (metric → value, low, high,
        signature), ``baseline_rules``, ``strongest`` (metric → the blind baseline with the highest
        score), ``per_finding`` (with sides and sizes that are wrong), ``other_findings`` (outside
        the 18, counted nowhere else), ``agreement``, ``strata``, ``missing``,
        ``language_of_written`` (see there), ``unfinished`` (reports cut short), ``template``,
        ``cross_check``, ``use``; ``ranking`` with a label head. An undefined score is None.

    Raises:
        CtscribeError: ``E_EVALUATE`` without references or without training reports of other
            patients; ``E_SCAN`` and ``E_PREDICTION`` for rows that contradict each other;
            ``E_METEOR`` and ``E_RADEVAL`` where one is asked for and cannot run.
    """
    truth = as_reports(studies := one_row_per_scan(references), source)
    known = None if training is None else as_reports(one_row_per_scan(training), source)
    _require_other_patients(truth, known)
    answers, missing = match_predictions(predictions, truth, source)
    stated = None if label_head is None else stated_by(label_head)
    blind = write_baselines(known, truth, config.seed, stated, config.profile)
    cut, texts = unfinished(predictions), _texts(answers, truth, config.profile)
    given = {"predicted": len(truth) - len(missing), "training_scans": len(known or ())}
    return {
        "n": {**count_scans(studies), **given, "seed": config.seed},
        **_scores(answers, blind, studies, truth, config, source),
        **({} if label_head is None else {"ranking": _ranking(label_head, truth)}),
        "baseline_rules": rules_of(blind, leave_one_out=known is None),
        "missing": missing,
        "language_of_written": language_of_written(answers, truth, missing, config.profile),
        "unfinished": {**asdict(cut), "share": cut.share},
        "template": _templates(answers, truth, config.seed),
        "cross_check": cross_check(**texts, profile=config.profile),
        "use": RESEARCH_USE,
    }


def _require_other_patients(
    truth: Sequence[ScanReport], known: Sequence[ScanReport] | None
) -> None:
    if not truth:
        raise CtscribeError("E_EVALUATE", "there must be studies to score, but the split has none")
    if known is None:
        if len({report.patient_id for report in truth}) == 1:
            raise CtscribeError(
                "E_EVALUATE",
                f"without training reports the blind baselines need references of two patients, "
                f"but all {len(truth)} are of one",
            )
        return
    patients = {report.patient_id for report in known}
    alone = len(patients) == 1 and patients <= {report.patient_id for report in truth}
    if not patients or alone:
        raise CtscribeError(
            "E_EVALUATE",
            f"the blind baselines need training reports of other patients, but {len(known)} are "
            "given",
        )


def _scores(
    answers: Answers,
    blind: Mapping[str, Baseline],
    studies: Sequence[ReportedRow],
    truth: Sequence[ScanReport],
    config: EvaluateConfig,
    source: LabelSource,
) -> dict[str, Any]:
    """What has intervals: the model's scores and the baselines', and the model's in parts."""
    jackknife = Jackknife.of([report.patient_id for report in truth])

    def table(system: Answers, rows: Statistics, values: ReportValues) -> dict[str, Any]:
        found = score_table(rows, jackknife, config.profile, source.name)
        if config.meteor:
            texts = _texts(system, truth, config.profile)
            found["meteor"] = meteor(**texts, profile=config.profile)
        return found | value_table(values, jackknife)

    labelled = _labelled_texts(answers, truth)
    placed = count_wrong_places(**labelled)
    baselines = {name: baseline.answers(source) for name, baseline in blind.items()}
    systems = [answers, *baselines.values()]
    texts = [each.texts for each in systems]
    values = score_systems(config.radeval, texts, [each.text for each in truth])
    statistics = [*each_scan_statistics(systems, truth, config.profile)]
    rows = statistics[0]
    model, *bars = map(table, systems, statistics, values)
    by_name = dict(zip(baselines, bars, strict=True))
    return {
        "model": model,
        "baselines": by_name,
        "strongest": strongest_blind(by_name),
        "per_finding": [a | b for a, b in zip(by_finding(rows, jackknife), placed, strict=True)],
        "other_findings": count_other_findings(**labelled),
        "agreement": by_agreement(answers, truth, jackknife),
        "strata": by_stratum(rows, studies, truth),
    }


def _ranking(label_head: Probabilities, truth: Sequence[ScanReport]) -> dict[str, Any]:
    jackknife = Jackknife.of([report.patient_id for report in truth])
    probabilities = np.array([label_head[report.scan_id] for report in truth], dtype=np.float64)
    return by_ranking(probabilities, truth, jackknife)


def _templates(answers: Answers, truth: Sequence[ScanReport], seed: int) -> dict[str, Any]:
    """How much of the references, and of what was written, is boilerplate."""
    patient_ids = [report.patient_id for report in truth]
    return {
        "references": template_statistics([each.sections for each in truth], patient_ids, seed),
        "predictions": template_statistics(answers.sections, patient_ids, seed),
    }


def cross_check(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile
) -> dict[str, float | int | str]:
    """Corpus BLEU-4 of the first reports by sacrebleu and by us.

    Both split the normalised texts at white space. They agree to 1e-9 wherever one sequence of
    four words is right.

    Returns:
        ``bleu_4`` and ``sacrebleu`` in [0, 1], ``scans``, and sacrebleu's ``signature``.
    """
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    predictions, references = predictions[:NUM_CHECKED], references[:NUM_CHECKED]
    written = [normalise(text, profile, predicted=True) for text in predictions]
    truth = [normalise(text, profile, predicted=False) for text in references]
    return {
        "bleu_4": bleu_4(predictions=predictions, references=references, profile=profile),
        "sacrebleu": metric.corpus_score(written, [truth]).score / 100,
        "scans": len(written),
        "signature": str(metric.get_signature()),
    }


def _texts(
    answers: Answers, truth: Sequence[ScanReport], profile: Profile
) -> dict[str, Sequence[str]]:
    references = [report.compared(profile) for report in truth]
    return {"predictions": answers.compared(profile), "references": references}


def _labelled_texts(answers: Answers, truth: Sequence[ScanReport]) -> dict[str, Sequence[str]]:
    references = [labelled_text(*report.sections) for report in truth]
    return {"predictions": answers.labelled_texts, "references": references}
