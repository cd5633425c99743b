"""References out of tables: what is read, what is refused, and that they score as the data set."""

import csv
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import (
    EvaluateConfig,
    PhantomConfig,
    SlicesConfig,
    SplitsConfig,
    VolumeConfig,
)
from ctscribe.base.types import SourceSplit
from ctscribe.data.ct_rate import CtRateTree, each_report
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.measure.references import (
    TablePaths,
    prepared_references,
    read_reference_tables,
    table_references,
)
from ctscribe.measure.scores import evaluate_predictions
from ctscribe.phantom.dataset import write_dataset
from ctscribe.text.findings import FINDINGS
from tests.studies import write_reports

CONFIG, SPLITS = EvaluateConfig(resamples=100), SplitsConfig()
LABELS = dict(zip(FINDINGS, "011000000000000000", strict=True))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[CtRateTree, Prepared]:
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
    prepare(out / "data", out / "prepared", volume, slices, SPLITS)
    return CtRateTree(out / "data"), Prepared(out / "prepared")


def tables(tree: CtRateTree, split: SourceSplit) -> TablePaths:
    return TablePaths(tree.reports_path(split), tree.labels_path(split), tree.metadata_path(split))


def predictions(tree: CtRateTree, path: Path) -> Path:
    """Each scan gets the findings of the next one, under the names of all its volumes."""
    reports = dict(each_report(tree.reports_path("valid")))
    texts = {name.rsplit("_", 1)[0]: cells["Findings_EN"] for name, cells in reports.items()}
    following = dict(zip(texts, [*texts.values()][1:] + [*texts.values()][:1], strict=True))
    return write_reports(path, {name: following[name.rsplit("_", 1)[0]] for name in reports})


def test_tables_score_as_the_prepared_data_set_does(
    phantom: tuple[CtRateTree, Prepared], tmp_path: Path
) -> None:
    tree, prepared = phantom
    written = predictions(tree, tmp_path / "p.csv")
    assert len(dict(each_report(tree.reports_path("valid")))) > 4  # some scans have two volumes
    ours = prepared_references(prepared, "test")
    theirs = table_references(tables(tree, "valid"), tables(tree, "train"), SPLITS)
    assert len(theirs.studies) > len(ours.studies)
    assert theirs.training is not None
    expected = evaluate_predictions(written, ours, CONFIG)
    found = evaluate_predictions(written, theirs, CONFIG)
    assert found.pop("inputs") != expected.pop("inputs")  # files and a folder have other hashes
    assert found == expected
    assert expected["n"]["training_scans"] < 12 + 12  # a share of the patients is held out
    assert {row["grouping"] for row in expected["strata"]} >= {"scanner", "sex", "age"}


def test_without_labels_and_training_the_scores_say_so(
    phantom: tuple[CtRateTree, Prepared], tmp_path: Path
) -> None:
    tree, _ = phantom
    written = predictions(tree, tmp_path / "p.csv")
    bare = table_references(TablePaths(tree.reports_path("valid")), None, SPLITS)
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
    write_reports(tmp_path / "p.csv", dict.fromkeys(names, "x"))
    found = table_references(TablePaths(tmp_path / "r.csv"), None, SPLITS)
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
    written = {"r": references, "t": training or {}, "p": dict.fromkeys(references, "x")}
    paths = {n: write_reports(tmp_path / f"{n}.csv", each) for n, each in written.items()}
    with pytest.raises(CtscribeError, match=f"{told}.*{code}"):
        known = TablePaths(paths["t"]) if training else None
        found = table_references(TablePaths(paths["r"]), known, SPLITS)
        evaluate_predictions(paths["p"], found, CONFIG)


def saved(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ct_rate(name: str, findings: str = "Clear  lungs.", **more: str) -> dict[str, str]:
    sections = {"Findings_EN": findings, "Impressions_EN": "Not given."}
    return {"VolumeName": name, **sections, **more}


@pytest.mark.parametrize(
    ("name", "patient_id", "scan_id", "alone"),
    [
        ("valid_53_b_2.nii.gz", "valid_53", "valid_53_b", 0),
        ("valid_53_b_2", "valid_53", "valid_53_b", 0),
        ("valid_53_b", "valid_53", "valid_53_b", 0),
        ("train_1", "train_1", "train_1", 1),
        ("folder/CASE-7.nii.gz", "CASE-7", "CASE-7", 1),
    ],
)
def test_patient_and_scan_come_from_the_name(
    tmp_path: Path, name: str, patient_id: str, scan_id: str, alone: int
) -> None:
    paths = TablePaths(saved(tmp_path / "r.csv", ct_rate(name)))
    table = read_reference_tables(paths, "valid")
    (row,) = table.studies
    assert (row.volume_name, row.patient_id, row.scan_id) == (name, patient_id, scan_id)
    assert (row.findings, row.impression, row.labels) == ("Clear lungs.", "", None)
    assert table.without_patient == alone


def test_columns_beside_the_reports_are_honoured(tmp_path: Path) -> None:
    more = {"patient": "P1", "manufacturer": "PNMS", "sex": "F", "age": "61.5", **LABELS}
    paths = TablePaths(saved(tmp_path / "r.csv", ct_rate("a", **more), ct_rate("b", **more)))
    table = read_reference_tables(paths, "valid")
    assert {row.patient_id for row in table.studies} == {"P1"}
    assert table.without_patient == 0
    row = table.studies[0]
    assert row.labels == tuple(map(int, LABELS.values()))
    assert (row.manufacturer, row.sex, row.age_years) == ("PNMS", "F", 61.5)


def test_labels_and_metadata_are_joined_whatever_the_suffix(tmp_path: Path) -> None:
    paths = TablePaths(
        saved(tmp_path / "r.csv", ct_rate("valid_1_a_1.nii.gz"), ct_rate("valid_2_a_1.nii.gz")),
        saved(
            tmp_path / "l.csv",
            *({"AccessionNo": f"valid_{n}_a_1", **LABELS} for n in (3, 2, 1)),
        ),
        saved(
            tmp_path / "m.csv",
            {
                "VolumeName": "valid_1_a_1.nii.gz",
                "Manufacturer": "PNMS",
                "PatientSex": "M",
                "PatientAge": "061Y",
            },
        ),
    )
    one, two = read_reference_tables(paths, "valid").studies
    assert one.labels == two.labels == tuple(map(int, LABELS.values()))
    assert (one.manufacturer, one.sex, one.age_years) == ("PNMS", "M", 61.0)
    assert (two.manufacturer, two.sex, two.age_years) == (None, None, None)


def test_a_manifest_gives_each_split_its_rows_under_the_names_of_scans(tmp_path: Path) -> None:
    rows = [
        {
            "volume": f"{scan}/ct.nii.gz",
            "patient": scan[:2],
            "scan": scan,
            "split": split,
            "findings": "Clear lungs.",
            "impression": "Normal.",
        }
        for scan, split in (("P1-2020", "train"), ("P2-2021", "valid"), ("P2-2022", "valid"))
    ]
    paths = TablePaths(saved(tmp_path / "scans.csv", *rows))
    scored = read_reference_tables(paths, "valid").studies
    assert [(row.volume_name, row.patient_id) for row in scored] == [
        ("P2-2021", "P2"),
        ("P2-2022", "P2"),
    ]
    (known,) = read_reference_tables(paths, "train").studies
    assert (known.scan_id, known.source_split) == ("P1-2020", "train")


def test_reports_without_findings_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [ct_rate("valid_1_a_1.nii.gz", "Not given."), ct_rate("valid_2_a_1.nii.gz")]
    table = read_reference_tables(TablePaths(saved(tmp_path / "r.csv", *rows)), "valid")
    assert [row.scan_id for row in table.studies] == ["valid_2_a"]
    assert table.left_out == {"valid_1_a_1"}


@pytest.mark.parametrize(
    ("rows", "labels", "code", "told"),
    [
        ([ct_rate("a"), ct_rate("a")], None, "E_DUPLICATE", "rows 2 and 3"),
        ([ct_rate("a.nii.gz"), ct_rate("x/a")], None, "E_DUPLICATE", "folder or suffix"),
        ([ct_rate("a", patient="")], None, "E_CSV", "the patient of every report"),
        ([ct_rate("a", patient="NaN")], None, "E_CSV", "the patient of every report, .* is NaN"),
        ([ct_rate("a", split="tested")], None, "E_COLUMN", "a must have split"),
        ([ct_rate("a", Emphysema="1")], None, "E_COLUMN", "lacks 'Medical material'"),
        ([ct_rate("a", age="old")], None, "E_METADATA", "'old'"),
        ([ct_rate("a")], [{"VolumeName": "b", **LABELS}], "E_NO_LABELS", "a must have a row"),
        ([ct_rate("a")], [{"VolumeName": "a", "Emphysema": "1"}], "E_COLUMN", "Medical material"),
        ([ct_rate("a")], [LABELS], "E_COLUMN", "the column 'VolumeName'"),
        (
            [ct_rate("a")],
            [{"VolumeName": name, **LABELS} for name in ("a", "x/a.nii.gz")],
            "E_DUPLICATE",
            "l.csv must name each volume once",
        ),
        ([ct_rate("a")], [{"VolumeName": "a", **LABELS, FINDINGS[3]: "2"}], "E_LABELS", "'2'"),
        ([ct_rate("a")], [{"VolumeName": "a", **LABELS}] * 2, "E_DUPLICATE", "rows 2 and 3"),
        ([{"VolumeName": "a", "Findings_EN": "x"}], None, "E_COLUMN", "Impressions_EN"),
    ],
)
def test_broken_tables_are_refused(
    tmp_path: Path,
    rows: list[dict[str, str]],
    labels: list[dict[str, str]] | None,
    code: str,
    told: str,
) -> None:
    labels_path = saved(tmp_path / "l.csv", *labels) if labels else None
    with pytest.raises(CtscribeError, match=f"{told}.*{code}"):
        read_reference_tables(TablePaths(saved(tmp_path / "r.csv", *rows), labels_path), "valid")
