"""How many planted faults the self-check finds, and how many sound drafts it marks.

``make bench NAME=selfcheck ARGS=REPORTS.csv``; the file has AccessionNo, report_text and the 18
findings, and without it the numbers of real reports stay those that are there. Phantom reports are
written as `phantom` writes them; the probabilities beside them are drawn from their labels, as by a
reader of the images of whom `CLARITY` says how well he sees.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.harness import RESULTS, labelled_reports, record, table, write_page
from ctscribe.base.files import read_json
from ctscribe.base.recipe import PhantomConfig
from ctscribe.learn.model.temperature import choose_threshold, fit_table
from ctscribe.measure.calibrate import fit_remark_bounds
from ctscribe.phantom.phrases import CONCLUDED
from ctscribe.phantom.study import draw_body, draw_patient, draw_study
from ctscribe.text.findings import FINDINGS
from ctscribe.text.sections import join_report, split_sentences
from ctscribe.text.self_check import KINDS, NOTES, Kind, check_text
from ctscribe.write.calibration import Calibration
from ctscribe.write.draft import SelfCheck, finding_rows
from ctscribe.write.draft_check import check_draft

NUM_DRAFTS, SEED = 200, 20
CLARITY = 2.5
"""Standard deviations between the log-odds of scans with a finding and without."""
DENIALS = (
    "No {} is seen.",
    "{} was not observed.",
    "There is no {} in either lung.",
    "No sign of {} was detected.",
    "The examination shows no evidence of {}.",
)
DENIED = {
    "Consolidation": "consolidation",
    "Lung opacity": "ground-glass density",
    "Bronchiectasis": "bronchiectasis",
    "Atelectasis": "atelectasis",
    "Lung nodule": "nodule",
    "Pleural effusion": "pleural effusion",
    "Pericardial effusion": "pericardial effusion",
    "Hiatal hernia": "hiatal hernia",
    "Emphysema": "emphysema",
    "Peribronchial thickening": "peribronchial thickening",
    "Interlobular septal thickening": "interlobular septal thickening",
    "Mosaic attenuation pattern": "mosaic attenuation",
    "Cardiomegaly": "cardiomegaly",
}
MEASURED = (
    "A consolidation of {} mm is seen in the {} lower lobe.",
    "There is a solid nodule measuring {} mm in the {} upper lobe.",
    "A {1} pleural effusion with a thickness of {0} mm is present.",
    "In the {1} lower lobe, a cavitary nodule of {0} mm is noted.",
)
STATED_ABSENT = (
    ("Consolidation", "A consolidation of {} mm is seen in the {} lower lobe."),
    ("Lung nodule", "There is a nodule measuring {} mm in the {} upper lobe."),
    ("Bronchiectasis", "Tubular bronchiectasis reaching {} mm is noted in the {} lower lobe."),
    ("Atelectasis", "There is atelectasis of {} mm thickness in the {} lower lobe."),
)
OUTSIDE = (
    "A pneumothorax of 15 mm is seen on the right.",
    "There is a fracture of the left seventh rib.",
    "A filling defect consistent with embolism is seen in the right pulmonary artery.",
    "There are millimetric stones in the gallbladder.",
    "A hypodense lesion of 12 mm is seen in the liver.",
    "A cortical cyst is present in the left kidney.",
    "Diffuse hepatic steatosis is noted.",
)
Planted = tuple["Written", "str | None"]


@dataclass(frozen=True)
class Written:
    """A phantom's report as a draft; ``sentences`` state the findings that are there."""

    findings: str
    impression: str
    sentences: Mapping[str, str]
    labels: np.ndarray
    probabilities: np.ndarray
    finished: bool = True

    def insert(self, rng: np.random.Generator, sentence: str) -> "Written":
        """With a sentence at any place of the findings."""
        parts = split_sentences(self.findings)
        parts.insert(int(rng.integers(len(parts) + 1)), sentence)
        return replace(self, findings=" ".join(parts))


Plant = Callable[[np.random.Generator, Written], Written | None]
"""A sound draft → one with a fault, or None where it has no place for it."""


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))] if len(choices) else None


def size_and_side(rng: np.random.Generator) -> tuple[int, str]:
    return int(rng.integers(11, 60)), ("right", "left")[int(rng.integers(2))]


def deny_what_is_stated(rng: np.random.Generator, draft: Written) -> Written | None:
    finding = pick(rng, [name for name in DENIED if name in draft.sentences])
    if finding is None:
        return None
    return draft.insert(rng, capital(pick(rng, DENIALS).format(DENIED[finding])))


def state_what_is_denied(rng: np.random.Generator, draft: Written) -> Written | None:
    denied = {row.finding for row in finding_rows(draft.findings) if row.status == "absent"}
    chosen = pick(rng, [text for name, text in STATED_ABSENT if name in denied])
    return chosen and draft.insert(rng, chosen.format(*size_and_side(rng)))


def conclude_what_is_not_found(rng: np.random.Generator, draft: Written) -> Written | None:
    there = {row.finding for row in finding_rows(draft.findings) if row.status == "present"}
    finding = pick(rng, [name for name in CONCLUDED if name not in there | {"Medical material"}])
    words = {"where": "the right lower lobe", "bilateral": "Right-sided", "plural": "Nodule"}
    words |= {"lungs": "the right lung", "size": "14", "site": "hilar"}
    told = CONCLUDED[finding].format(**words)
    return replace(draft, impression=f"{draft.impression} {told}")


def conclude_normal(rng: np.random.Generator, draft: Written) -> Written | None:
    normal = ("Thoracic CT examination within normal limits.", "Normal chest CT.")
    telling = set(draft.sentences) - {"Medical material"}
    return replace(draft, impression=pick(rng, normal)) if telling else None


def conclude_another_size(rng: np.random.Generator, draft: Written) -> Written | None:
    size = re.search(r"largest (\d+) mm", draft.impression)
    if size is None or f"{size[1]} mm" not in draft.findings:
        return None
    other = f"largest {3 * int(size[1])} mm"
    return replace(draft, impression=draft.impression.replace(size[0], other))


def conclude_the_other_side(rng: np.random.Generator, draft: Written) -> Written | None:
    for sentence in split_sentences(draft.impression):
        sides = re.findall(r"\b([Rr]ight|[Ll]eft)\b", sentence)
        if len(sides) == 1 and "both" not in sentence:
            return replace(draft, impression=draft.impression.replace(sentence, mirror(sentence)))
    return None


def mirror(sentence: str) -> str:
    other = {"right": "left", "left": "right", "Right": "Left", "Left": "Right"}
    return re.sub(r"\b([Rr]ight|[Ll]eft)\b", lambda match: other[match[1]], sentence)


def twin(rng: np.random.Generator, draft: Written) -> Written | None:
    sentence = pick(rng, MEASURED).format(*size_and_side(rng))
    return draft.insert(rng, sentence).insert(rng, mirror(sentence))


def say_again(rng: np.random.Generator, draft: Written) -> Written | None:
    return draft.insert(rng, pick(rng, split_sentences(draft.findings)))


def go_round(rng: np.random.Generator, draft: Written) -> Written | None:
    words = pick(rng, split_sentences(draft.findings)).rstrip(".").split()
    start = int(rng.integers(max(1, len(words) - 3)))
    phrase = " ".join(words[start : start + 3])
    times = int(rng.integers(3, 9))
    return draft.insert(rng, f"There is {' '.join([phrase] * times)}.")


def leave_empty(rng: np.random.Generator, draft: Written) -> Written | None:
    empty = pick(rng, ({"findings": ""}, {"impression": ""}, {"findings": " . ", "impression": ""}))
    return replace(draft, **empty)


def run_out(rng: np.random.Generator, draft: Written) -> Written | None:
    words = draft.findings.split()
    kept = " ".join(words[: int(rng.integers(5, len(words) - 2))])
    return replace(draft, findings=kept, impression="", finished=False)


def break_off(rng: np.random.Generator, draft: Written) -> Written | None:
    words = draft.impression.split()
    ends = [i for i, word in enumerate(words) if word in ("in", "the", "of", "and", "to", "with")]
    end = pick(rng, ends)
    return None if end is None else replace(draft, impression=" ".join(words[: end + 1]))


def state_outside(rng: np.random.Generator, draft: Written) -> Written | None:
    return draft.insert(rng, pick(rng, OUTSIDE))


def leave_out(draft: Written, finding: str) -> Written:
    told = {row.finding: row.sentences for row in finding_rows(text_of(draft))}[finding]
    findings, impression = draft.findings, draft.impression
    for sentence in told:
        findings, impression = findings.replace(sentence, ""), impression.replace(sentence, "")
    return replace(draft, findings=findings, impression=impression or "As described.")


def leave_out_seen(rng: np.random.Generator, draft: Written, least: float) -> Written | None:
    seen = [i for i in np.flatnonzero(draft.labels) if draft.probabilities[i] > least]
    number = pick(rng, seen)
    return None if number is None else leave_out(draft, FINDINGS[number])


def state_what_is_not_seen(rng: np.random.Generator, draft: Written) -> Written | None:
    names = [name for name, _ in STATED_ABSENT]
    unseen = [name for name in names if draft.probabilities[FINDINGS.index(name)] < 0.01]
    name = pick(rng, unseen)
    if name is None:
        return None
    return draft.insert(rng, dict(STATED_ABSENT)[name].format(*size_and_side(rng)))


PLANTS: tuple[tuple[str, tuple[Kind, ...], Plant], ...] = (
    ("a stated finding is denied", ("contradiction",), deny_what_is_stated),
    ("a denied finding is stated, with size", ("contradiction",), state_what_is_denied),
    ("the impression states what the findings do not", ("impression",), conclude_what_is_not_found),
    ("the impression calls the chest normal", ("impression",), conclude_normal),
    ("the impression has another size", ("impression",), conclude_another_size),
    ("the impression has the other side", ("side",), conclude_the_other_side),
    ("the same with its size on both sides", ("side",), twin),
    ("a sentence stands twice", ("repeated",), say_again),
    ("a phrase goes round", ("repeated",), go_round),
    ("a section or all is empty", ("empty",), leave_empty),
    ("the length limit cuts the text", ("cut",), run_out),
    ("the text breaks off", ("cut",), break_off),
    ("a finding outside the 18 is stated", ("outside",), state_outside),
    ("a finding above 0.99 is left out", ("images",), partial(leave_out_seen, least=0.99)),
    ("a finding below 0.01 is stated", ("images",), state_what_is_not_seen),
)
LEANING: tuple[Kind, ...] = ("images", "doubted")
LESSER: tuple[tuple[str, tuple[Kind, ...], Plant], ...] = (
    ("one above 0.97 is left out: marked or noted", LEANING, partial(leave_out_seen, least=0.97)),
    ("any finding is left out: marked", ("images",), partial(leave_out_seen, least=0.0)),
    ("any finding is left out: marked or noted", LEANING, partial(leave_out_seen, least=0.0)),
)
"""What the images' reader does not surely see himself."""


def text_of(draft: Written) -> str:
    return f"{draft.findings}\n{draft.impression}"


def write_drafts(seed: int, number: int) -> list[Written]:
    drafts = []
    for index in range(number):
        rng = np.random.default_rng([seed, index])
        patient = draw_patient(rng)
        study = draw_study(rng, draw_body(rng, patient), patient, PhantomConfig())
        report, labels = study.report, np.array(study.labels)
        odds = rng.normal(CLARITY * (labels - 0.5), 1.0)
        drafts.append(Written(report.findings, report.impression, report.sentences, labels, odds))
    return drafts


def calibrated(drafts: Sequence[Written], others: Sequence[Written]) -> tuple[Calibration, Any]:
    """The calibration of one set's log-odds, and another set with its probabilities."""
    odds, truth = np.array([each.probabilities for each in others]), labels_of(others)
    fitted = fit_table(odds, truth)
    probability = fitted.of_table(odds)
    calibration = Calibration(
        weights_sha256="",
        finding_slope=fitted.slopes[0],
        finding_offsets=fitted.offsets,
        threshold=choose_threshold(probability, truth),
        cue_threshold=0.5,
        remark_bounds=fit_remark_bounds(probability, truth),
    )
    seen = calibration.findings(np.array([each.probabilities for each in drafts]))
    return calibration, [
        replace(each, probabilities=row) for each, row in zip(drafts, seen, strict=True)
    ]


def labels_of(drafts: Sequence[Written]) -> np.ndarray:
    return np.array([each.labels for each in drafts]) > 0


def check(draft: Written, calibration: Calibration) -> SelfCheck:
    text = join_report(draft.findings, draft.impression)
    rows = finding_rows(text_of(draft))
    seen = [
        replace(row, probability=float(p)) for row, p in zip(rows, draft.probabilities, strict=True)
    ]
    return check_draft(text, seen, calibration, finished=draft.finished)


def share(hits: int, total: int) -> dict[str, float | int]:
    interval = binomtest(hits, total).proportion_ci()
    return {
        "hits": hits,
        "of": total,
        "value": hits / total,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def measure_phantoms() -> dict[str, Any]:
    sound = write_drafts(SEED, 2 * NUM_DRAFTS)
    calibration, drafts = calibrated(sound[NUM_DRAFTS:], sound[:NUM_DRAFTS])
    found = {}
    for name, kinds, plant in (*PLANTS, *LESSER):
        hits = total = turn = 0
        while total < NUM_DRAFTS:
            rng = np.random.default_rng([SEED, turn, 1])
            planted = plant(rng, drafts[turn % NUM_DRAFTS])
            turn += 1
            if planted is not None:
                total += 1
                remarks = check(planted, calibration).remarks
                hits += any(remark.kind in kinds for remark in remarks)
        found[name] = share(hits, total)
    checks = [check(draft, calibration) for draft in drafts]
    kinds_seen = Counter(kind for each in checks for kind in {r.kind for r in each.remarks})
    return {
        "planted": found,
        "clean": {
            "any mark": share(sum(bool(each.marks) for each in checks), NUM_DRAFTS),
            **{kind: share(kinds_seen[kind], NUM_DRAFTS) for kind in KINDS},
        },
        "bounds": calibration.remark_bounds,
        "threshold": calibration.threshold,
    }


def measure_reports(path: Path) -> dict[str, Any]:
    """Shares of real reports marked, of those that were looked at and of the others."""
    reports = [report.findings for report in labelled_reports(path)]
    return {
        "looked at": shares_marked(reports[0::2]),
        "not looked at": shares_marked(reports[1::2]),
    }


def shares_marked(texts: Sequence[str]) -> dict[str, Any]:
    counts = Counter[str]()
    for text in texts:
        opened = re.search(r'["“”•]', text)
        end = opened.start() if opened else len(text)
        remarks = check_text(text[:end], text[end:])
        # A report without an impression of its own has it in its findings.
        found = {each.kind for each in remarks if opened or each.kind != "empty"}
        counts.update(found)
        counts["any mark"] += bool(found - NOTES)
    kinds = [kind for kind in KINDS if kind not in LEANING]
    return {kind: share(counts[kind], len(texts)) for kind in ("any mark", *kinds)}


def shown(found: Mapping[str, float]) -> str:
    return f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def page(found: Mapping[str, Any]) -> dict[str, Any]:
    phantoms, reports = found["phantoms"], found["reports"]
    planted = [
        (name, f"{each['hits']} of {each['of']}", shown(each))
        for name, each in phantoms["planted"].items()
    ]
    heads: dict[str, str] = {"any mark": "any mark"}
    heads.update(KINDS.items())
    sides = (phantoms["clean"], reports["looked at"], reports["not looked at"])
    clean = [
        (
            f"{heads[kind]}{' (note)' if kind in NOTES else ''}",
            *("" if kind not in each else shown(each[kind]) for each in sides),
        )
        for kind in heads
    ]
    columns = ("", "sound phantom drafts", "real reports, looked at", "real reports, others")
    return {
        "planted": table(("fault", "found", "share"), planted),
        "clean": table(columns, clean),
        "number": NUM_DRAFTS,
        "reports": reports["looked at"]["any mark"]["of"],
        "clarity": CLARITY,
        "low": phantoms["bounds"][0],
        "high": phantoms["bounds"][1],
        "packages": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
    }


if __name__ == "__main__":
    named = sys.argv[1:]
    real = measure_reports(Path(named[0])) if named else None
    real = real or read_json(RESULTS / "selfcheck.json")["reports"]
    record("selfcheck", {"phantoms": measure_phantoms(), "reports": real})
    write_page("selfcheck", page(read_json(RESULTS / "selfcheck.json")))
