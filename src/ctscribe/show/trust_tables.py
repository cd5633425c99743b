"""How far a draft can be trusted, as tables: its evidence, its probabilities, its refusals.

In: what `measure.faithfulness` and `measure.calibrate` return. Out: `Table`.
"""

from collections.abc import Mapping
from typing import Any

from ctscribe.base.about import RESEARCH_USE
from ctscribe.show.tables import IN_BRACKETS, Table, value_of

_RANKED_BY = {
    "attention": "finding queries",
    "leave_one_out": "leave one out",
    "random": "random slices",
    "chance": "expected by chance",
}
_CLAIMS = {
    "findings_raw": "findings, before",
    "findings": "findings, calibrated",
    "sentences": "sentences, calibrated",
}
_GROUNDING = {
    "dice": "Dice",
    "hit_rate": "Hit rate",
    "touch_rate": "Touched",
    "instance_f1": "Instance F1",
    "instance_precision": "Instance precision",
    "instance_recall": "Instance recall",
    "false_findings": "False findings",
}


def faithfulness_tables(found: Mapping[str, Any]) -> list[Table]:
    """How often the slices a sentence is said to rest on hold its finding, and overlap of boxes."""
    groups = {"all": "all findings", "focal": "findings on at most half the slices"}
    return [_hit_rates(title, found[group]) for group, title in groups.items()]


def calibration_tables(found: Mapping[str, Any], split: str) -> list[Table]:
    """Calibration on a split, and how often what is no scan is refused."""
    claims = {title: found[split][key] for key, title in _CLAIMS.items() if found[split][key]}
    calibration = tuple(
        (
            title,
            str(part["cases"]),
            value_of(part["ece"]),
            f"{part['brier']:.3f}",
            f"{part['area_under_risk_coverage']:.3f}",
        )
        for title, part in claims.items()
    )
    refusals = tuple(
        (kind, f"{rate['refused']} of {rate['of']}", value_of(rate))
        for kind, rate in found["abstention"].items()
    )
    note = "Risk: area under the risk–coverage curve."
    return [
        Table(
            f"Calibration on the {split} split",
            ("Of", "Cases", "ECE", "Brier", "Risk"),
            calibration,
            (note,),
        ),
        Table("Refusals", ("Shown", "Refused", "Rate"), refusals),
    ]


def grounding_tables(found: Mapping[str, Any]) -> list[Table]:
    """What `measure.grounding` found: over all findings, and of each of them."""
    n, scores = found["n"], found["scores"]
    titles = {metric: title for metric, title in _GROUNDING.items() if metric in scores}
    told = (f"{titles[metric]}: {scores[metric]['signature'].split('|')[1]}." for metric in titles)
    notes = (
        f"{n['findings']} findings in {n['volumes']} volumes of {n['patients']} patients; "
        f"{IN_BRACKETS}",
        f"{len(found['missing'])} volumes have no prediction, which counts as pointing nowhere; "
        f"{found['passed_over']} predicted ones are not in the reference.",
        *told,
        RESEARCH_USE,
    )
    rows = [
        (row["finding"], str(row["findings"]), *(value_of(row[metric]) for metric in titles))
        for row in sorted(found["per_finding"], key=lambda row: -row["findings"])
    ]
    whole = ("All", str(n["findings"]), *(value_of(scores[metric]) for metric in titles))
    columns = ("Finding", "In the reference", *titles.values())
    return [Table("Grounding", columns, (*rows, whole), notes, rules=(len(rows),))]


def _hit_rates(title: str, part: Mapping[str, Any]) -> Table:
    rates = [part["hit@1"], part["hit@3"]]
    rows = tuple(
        (method, *(value_of(rate[name]) for rate in rates))
        for name, method in _RANKED_BY.items()
        if name in rates[0]
    )
    boxes = part["overlap"]
    notes = (
        f"Of {part['sentences']} sentences that state a true finding.",
        f"Overlap of boxes (IoU): {value_of(boxes['attention'])}, "
        f"random places {value_of(boxes['random'])}.",
    )
    return Table(f"Evidence, {title}", ("Ranked by", "hit@1", "hit@3"), rows, notes)
