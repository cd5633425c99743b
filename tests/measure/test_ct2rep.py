"""CT2Rep's pair of files without header or names, as pandas writes a column of texts."""

import random
from pathlib import Path

import pytest

from ctscribe.base.files import read_text, write_text
from ctscribe.base.rows import StudyRow
from ctscribe.measure.language import normalise
from ctscribe.measure.predictions import Noticed, convert_predictions, read_predictions
from tests.refusals import refusal
from tests.studies import prediction, reported_studies, study_row, write_reports

GTS = "res.csv", "gts.csv"


def tokens(text: str) -> str:
    return " ".join(normalise(text, "r2gen", predicted=False).split())


def distinct_studies(count: int) -> list[StudyRow]:
    return [
        study_row(
            f"valid_{n}_a_1.nii.gz", findings=f"A nodule of {n} mm, left.", impression="Nodule."
        )
        for n in range(10, 10 + count)
    ]


def saved(folder: Path, written: list[str], truth: list[str]) -> Path:
    """As ``DataFrame.to_csv(header=False, index=False)``, which quotes what is empty."""
    for name, texts in zip(GTS, (written, truth), strict=True):
        lines = [text if text and "," not in text else f'"{text}"' for text in texts]
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / "res.csv"


def said_of(studies: list[StudyRow], path: Path) -> dict[str, str]:
    return {row.scan_id: row.findings for row in read_predictions(path, studies)}


@pytest.mark.parametrize("order", ["as given", "shuffled"])
def test_each_report_goes_to_the_study_of_its_true_one(tmp_path: Path, order: str) -> None:
    studies = distinct_studies(12)
    truth = [tokens(f"{s.findings} {s.impression}") for s in studies]
    written = [f"text {n} ." for n in range(12)]
    pairs = list(zip(truth, written, strict=True))
    if order == "shuffled":
        random.Random(0).shuffle(pairs)
    path = saved(tmp_path, [said for _, said in pairs], [true for true, _ in pairs])
    expected = {study.scan_id: text for study, text in zip(studies, written, strict=True)}
    assert said_of(studies, path) == expected


def test_findings_alone_rare_words_and_a_cut_end_are_known(tmp_path: Path) -> None:
    long = "The lungs are clear and the heart is of normal size and all the rest is as well."
    studies = [
        *distinct_studies(2),
        study_row("valid_3_a_1.nii.gz", findings=long, impression="Normal."),
    ]
    truth = [tokens(studies[1].findings), "a <unk> of 10 mm left . nodule ."]
    truth.append(" ".join(tokens(long).split()[:9]))
    path = saved(tmp_path, ["one .", "", "three ."], truth)
    assert said_of(studies, path) == {
        "valid_11_a": "one .",
        "valid_10_a": "",
        "valid_3_a": "three .",
    }


def test_equal_reports_are_told_apart_by_the_order_of_all_or_not_at_all(tmp_path: Path) -> None:
    studies = [
        *distinct_studies(2),
        study_row("valid_1_a_1.nii.gz"),
        study_row("valid_2_a_1.nii.gz"),
    ]
    truth = [tokens(f"{s.findings} {s.impression}") for s in studies]
    written = ["zero .", "one .", "two .", "three ."]
    assert said_of(studies, saved(tmp_path, written, truth)) == {
        study.scan_id: text for study, text in zip(studies, written, strict=True)
    }
    path = saved(tmp_path, written, [truth[1], truth[0], *truth[2:]])
    with refusal("E_PREDICTION", "report in line 3 is that of 2 scans") as caught:
        said_of(studies, path)
    assert "clear" not in str(caught.value)


def test_reconstructions_of_one_scan_share_their_report(tmp_path: Path) -> None:
    studies = [study_row(f"valid_1_a_{n}.nii.gz") for n in (1, 2)]
    studies += [study_row("valid_2_a_1.nii.gz", findings="A nodule.")]
    truth = [tokens(f"{s.findings} {s.impression}") for s in (studies[2], *studies[:2])]
    assert said_of(studies, saved(tmp_path, ["two .", "one .", "one ."], truth)) == {
        "valid_1_a": "one .",
        "valid_2_a": "two .",
    }


@pytest.mark.parametrize(
    ("written", "truth", "told"),
    [
        (["a .", "b ."], ["x ."], "they have 2 and 1 lines"),
        (["a ."], ["another report ."], "the true report in line 1 is no study's"),
        (["a .", "b ."], ["10", "10"], "line 2 repeats the report of a volume"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, written: list[str], truth: list[str], told: str
) -> None:
    studies = distinct_studies(1)
    truth = [tokens(f"{studies[0].findings} Nodule.") if each == "10" else each for each in truth]
    with refusal("E_PREDICTION", told):
        said_of(studies, saved(tmp_path, written, truth))


def test_without_the_true_reports_it_is_refused_and_a_table_of_that_name_is_a_table(
    tmp_path: Path,
) -> None:
    studies = reported_studies(2)
    (tmp_path / "res.csv").write_text("the lungs are clear .\n")
    with refusal("E_PREDICTION", r"gts\.csv.* not there") as caught:
        said_of(studies, tmp_path / "res.csv")
    assert "lungs" not in str(caught.value)
    path = write_reports(tmp_path / "res.csv", {studies[0].volume_name: "A nodule."})
    (tmp_path / "gts.csv").write_text("anything\n")
    assert said_of(studies, path) == {"valid_0_a": "A nodule."}
    (tmp_path / "res.csv").write_text("a .\n")
    (tmp_path / "gts.csv").write_text("x, y\n")
    with refusal("E_CSV", "row 1 has 2"):
        said_of(studies, path)


def test_a_pair_that_is_written_is_read_again(tmp_path: Path) -> None:
    studies = distinct_studies(5)
    rows = [prediction(studies[n], f"A nodule of {n} mm. No, none.") for n in (3, 0, 2)]
    reports = {row.volume_name: row.findings for row in rows}
    path = write_reports(tmp_path / "p.csv", reports)
    out = tmp_path / "model_res.csv"
    number, paths = convert_predictions(path, out, "ct2rep", studies, Noticed())
    assert (number, paths) == (3, [out, tmp_path / "model_gts.csv"])
    lines = read_text(out).splitlines()
    assert lines == ["a nodule of 0 mm . no none .", '""', *lines[2:4], '""']
    assert said_of(studies, out) == {
        study.scan_id: tokens(reports.get(study.volume_name, ""))
        if study.volume_name in reports
        else ""
        for study in studies
    }
    write_text(tmp_path / "gts.csv", read_text(paths[1]))
    assert read_text(tmp_path / "gts.csv").splitlines()[0] == "a nodule of 10 mm left . nodule ."
