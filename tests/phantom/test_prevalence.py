import numpy as np
import numpy.typing as npt
import pytest

from ctscribe.phantom.study import FINDING_MODEL, draw_labels, draw_patient
from ctscribe.text.findings import FINDINGS


@pytest.fixture(scope="module")
def labels() -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return np.array([draw_labels(rng, draw_patient(rng), 0.0) for _ in range(6000)])


def test_each_finding_is_as_frequent_as_in_ct_rate(labels: npt.NDArray[np.int64]) -> None:
    wanted = [FINDING_MODEL[finding][0] for finding in FINDINGS]
    np.testing.assert_allclose(labels.mean(axis=0), wanted, atol=0.02)


def test_patients_have_as_many_findings_as_in_ct_rate(labels: npt.NDArray[np.int64]) -> None:
    assert labels.sum(axis=1).mean() == pytest.approx(3.41, abs=0.12)
    assert (labels.sum(axis=1) == 0).mean() == pytest.approx(0.113, abs=0.02)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Arterial wall calcification", "Coronary artery wall calcification"),
        ("Consolidation", "Lung opacity"),
        ("Cardiomegaly", "Pleural effusion"),
        ("Emphysema", "Peribronchial thickening"),
    ],
)
def test_findings_of_one_disease_come_together(
    labels: npt.NDArray[np.int64], first: str, second: str
) -> None:
    a, b = (labels[:, FINDINGS.index(name)] for name in (first, second))
    assert np.corrcoef(a, b)[0, 1] > 0.15


def test_lasting_findings_stay_between_scans_and_passing_ones_may_go() -> None:
    rng = np.random.default_rng(1)
    lasting = np.array([FINDING_MODEL[finding][1] for finding in FINDINGS])
    pairs = []
    for _ in range(300):
        patient = draw_patient(rng)
        pairs.append((draw_labels(rng, patient, 0.0), draw_labels(rng, patient, 0.0)))
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    assert (first[:, lasting] == second[:, lasting]).all()
    assert (first[:, ~lasting] != second[:, ~lasting]).any()
