"""The reader that was no reward: what it takes from reports that it has not seen."""

from itertools import product

import numpy as np

from benchmarks.reader import Reader

EFFUSION = ("There is a small pleural effusion.", "A pleural effusion is seen on the right.")
NO_EFFUSION = ("No pleural effusion.", "There is no pleural effusion.")
NODULE = ("There is a nodule of 6 mm.", "A nodule is seen in the upper lobe.")
NO_NODULE = ("No nodule is seen.", "There is no nodule in the lung.")
REPORTS = [
    (f"{about_effusion} {about_nodule}", (about_effusion in EFFUSION, about_nodule in NODULE))
    for about_effusion, about_nodule in product(EFFUSION + NO_EFFUSION, NODULE + NO_NODULE)
]


def test_findings_that_are_denied_are_told_from_those_that_are_stated() -> None:
    left_out = REPORTS[::5]
    taught = [report for report in REPORTS if report not in left_out]
    texts, labels = zip(*taught, strict=True)
    read = Reader(texts, labels).read([text for text, _ in left_out])
    assert {(True, True), (False, False)} <= {labels for _, labels in left_out}
    assert np.array_equal(read, [labels for _, labels in left_out])


def test_words_that_no_report_had_say_nothing() -> None:
    texts, labels = zip(*REPORTS, strict=True)
    read = Reader(texts, labels).read(["", "Cardiac size within limits"])
    assert np.array_equal(read[0], read[1])
