"""Scores from tables alone are the scores of the prepared data set."""

import csv
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig, PhantomConfig, SlicesConfig, VolumeConfig
from ctscribe.base.types import SourceSplit
from ctscribe.data.ct_rate import CtRateTree, read_reports
from ctscribe.data.prepare import prepare
from ctscribe.measure.references import TablePaths, prepared_references, table_references
from ctscribe.measure.scores import evaluate_predictions
from ctscribe.phantom.dataset import write_dataset

CONFIG = EvaluateConfig(resamples=100)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[CtRateTree, Path]:
    """A CT-RATE-shaped data set with two reconstructions of most scans, and it prepared."""
    out = tmp_path_factory.mktemp("phantom")
    config = PhantomConfig(
        num_train_patients=12,
        num_valid_patients=4,
        spacing_mm=(5.5, 5.5, 8.0),
        matrix_px=64,
        burden=0.7,
    )
    write_dataset(out / "data", config)
    volume = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
    slices = SlicesConfig(num_slices=4, frame_size_px=(56, 56))
    prepare(out / "data", out / "prepared", volume, slices)
    return CtRateTree(out / "data"), out / "prepared"


def tables(tree: CtRateTree, split: SourceSplit) -> TablePaths:
    return TablePaths(tree.reports_path(split), tree.labels_path(split), tree.metadata_path(split))


def predictions(tree: CtRateTree, path: Path) -> Path:
    """Each scan gets the findings of the next one, under the names of all its volumes."""
    reports = read_reports(tree.reports_path("valid"))
    texts = {name.rsplit("_", 1)[0]: cells["Findings_EN"] for name, cells in reports.items()}
    following = dict(zip(texts, [*texts.values()][1:] + [*texts.values()][:1], strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("VolumeName", "report_text"))
        writer.writerows((name, following[name.rsplit("_", 1)[0]]) for name in reports)
    return path


def test_tables_score_as_the_prepared_data_set_does(
    phantom: tuple[CtRateTree, Path], tmp_path: Path
) -> None:
    tree, prepared = phantom
    written = predictions(tree, tmp_path / "p.csv")
    assert len(read_reports(tree.reports_path("valid"))) > 4  # some scans have two volumes
    ours = prepared_references(prepared, "test", 0.1)
    theirs = table_references(tables(tree, "valid"), tables(tree, "train"), 0.1)
    assert len(theirs.studies) > len(ours.studies)
    assert theirs.training is not None
    expected = evaluate_predictions(written, ours, CONFIG)
    assert evaluate_predictions(written, theirs, CONFIG) == expected
    assert expected["n"]["training_scans"] < 12 + 12  # a share of the patients is held out
    assert {row["grouping"] for row in expected["strata"]} >= {"scanner", "sex", "age"}


def test_without_labels_and_training_the_scores_say_so(
    phantom: tuple[CtRateTree, Path], tmp_path: Path
) -> None:
    tree, _ = phantom
    written = predictions(tree, tmp_path / "p.csv")
    bare = table_references(TablePaths(tree.reports_path("valid")), None, 0.1)
    scores = evaluate_predictions(written, bare, CONFIG)
    assert scores["n"]["training_scans"] == 0
    assert scores["n"]["labels_read_from_text"] == scores["n"]["scans"]
    assert all("without those of its own patient" in r for r in scores["baseline_rules"].values())


def test_predictions_for_reports_without_findings_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        "VolumeName,Findings_EN,Impressions_EN\nvalid_1_a_1.nii.gz,Clear lungs.,Normal.\n"
        "valid_2_a_1.nii.gz,Not given.,Not given.\nvalid_3_a_1.nii.gz,Effusion.,Effusion.\n"
    )
    names = ("valid_1_a_1", "valid_2_a_1", "valid_2_a", "valid_3_a_1")
    (tmp_path / "p.csv").write_text("VolumeName,report\n" + "".join(f"{n},x\n" for n in names))
    found = table_references(TablePaths(tmp_path / "r.csv"), None, 0.1)
    scores = evaluate_predictions(tmp_path / "p.csv", found, CONFIG)
    assert scores["n"]["predicted"] == scores["n"]["scans"] == 2
    assert scores["n"]["reports_left_out"] == 1
    (tmp_path / "p.csv").write_text("VolumeName,report\nvalid_4_a_1,x\n")
    with pytest.raises(CtscribeError, match="E_PREDICTION"):
        evaluate_predictions(tmp_path / "p.csv", found, CONFIG)


@pytest.mark.parametrize(
    ("references", "training", "code", "told"),
    [
        ({"valid_1_a_1": "x", "valid_1_a_2": "y"}, None, "E_SCAN", "share its findings"),
        ({"valid_1_a_1": "x", "valid_1_b_1": "y"}, None, "E_EVALUATE", "all 2 are of one"),
        ({"a": "x", "b": "y"}, {"b": "z"}, "E_EVALUATE", "1 patients of"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    tmp_path: Path,
    references: dict[str, str],
    training: dict[str, str] | None,
    code: str,
    told: str,
) -> None:
    paths = {}
    for name, reports in {
        "r": references,
        "t": training,
        "p": dict.fromkeys(references, ""),
    }.items():
        paths[name] = tmp_path / f"{name}.csv"
        lines = [f"{key},{text or 'x'}\n" for key, text in (reports or {}).items()]
        paths[name].write_text("".join(["VolumeName,report_text\n", *lines]))
    with pytest.raises(CtscribeError) as caught:
        known = TablePaths(paths["t"]) if training else None
        found = table_references(TablePaths(paths["r"]), known, 0.1)
        evaluate_predictions(paths["p"], found, CONFIG)
    assert caught.value.code == code
    assert told in caught.value.sentence
