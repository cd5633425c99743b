from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.data.ct_rate import (
    LABEL_COLUMNS,
    METADATA_COLUMNS,
    REPORT_COLUMNS,
    CtRateTree,
    VolumeName,
    each_report,
    parse_metadata,
    parse_volume_name,
    read_labels,
    read_no_chest,
    read_table,
)
from ctscribe.text.report_tables import report_fields
from tests.refusals import refusal


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\r\n".join(lines) + "\r\n", encoding=encoding, newline="")
    return path


def test_published_columns() -> None:
    assert len(METADATA_COLUMNS) == 44
    assert METADATA_COLUMNS[:3] == ("VolumeName", "Manufacturer", "SeriesDescription")
    assert METADATA_COLUMNS[-3:] == ("NumberofSlices", "ZSpacing", "StudyDate")
    assert len(LABEL_COLUMNS) == 19


def test_volume_name_is_taken_apart() -> None:
    assert parse_volume_name("valid_53_ab_12.nii.gz") == VolumeName(
        "valid", "valid_53", "valid_53_ab", 12
    )


@pytest.mark.parametrize(
    "name",
    [
        "test_1_a_1.nii.gz",
        "train_01_a_1.nii.gz",
        "train_1_A_1.nii.gz",
        "train_1_a_1.nii",
        "",
        "../x",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with refusal("E_VOLUME_NAME", "must be named"):
        parse_volume_name(name)


def test_tree_uses_the_published_paths(tmp_path: Path) -> None:
    tree = CtRateTree(tmp_path)
    data = tmp_path / "dataset"
    assert tree.metadata_path("valid") == data / "metadata/validation_metadata.csv"
    assert tree.reports_path("valid") == data / "radiology_text_reports/validation_reports.csv"
    assert tree.labels_path("valid") == (
        data / "multi_abnormality_labels/valid_predicted_labels.csv"
    )
    assert tree.no_chest_path("train") == data / "metadata/no_chest_train.txt"
    name = "train_7_b_2.nii.gz"
    assert tree.volume_path(name, "v1") == data / "train/train_7/train_7_b" / name
    assert tree.volume_path(name, "v2") == data / "train_fixed/train_7/train_7_b" / name


def test_flat_folder_and_v2_before_v1(tmp_path: Path) -> None:
    tree = CtRateTree(tmp_path)
    assert tree.find_volume("train_1_a_1.nii.gz") is None
    flat = tmp_path / "train_1_a_1.nii.gz"
    flat.touch()
    assert tree.find_volume(flat.name) == flat
    flat.unlink()
    for flavour in ("v1", "v2"):
        path = tmp_path / "dataset" / {"v1": "train", "v2": "train_fixed"}[flavour]
        path = path / "train_1/train_1_a" / flat.name
        path.parent.mkdir(parents=True)
        path.touch()
        assert tree.find_volume(flat.name) == path


def test_reports_with_bom_quotes_and_newlines(tmp_path: Path) -> None:
    header = ",".join(REPORT_COLUMNS)
    row = 'train_1_a_1.nii.gz,,"CT, thin","Heart\nnormal ""size"".",Not given.'
    path = write_csv(tmp_path / "r.csv", header, row, encoding="utf-8-sig")
    table = dict(each_report(path))
    assert table["train_1_a_1.nii.gz"]["Findings_EN"] == 'Heart\nnormal "size".'


@pytest.mark.parametrize(
    ("lines", "code", "sentence"),
    [
        (["VolumeName,A", "x,1", "x,2"], "E_DUPLICATE", "rows 2 and 3"),
        (["VolumeName,B", "x,1"], "E_COLUMN", "must have the column 'A', but lacks it"),
        (["VolumeName,A,A", "x,1,2"], "E_COLUMN", "has two 'A'"),
        (["VolumeName,A,C", "x,1,2"], "E_COLUMN", "'C' is unknown"),
        (["VolumeName,A", "x"], "E_CSV", "row 2 has 1"),
        (["VolumeName,A", "x,1,2"], "E_CSV", "row 2 has 3"),
        (["VolumeName,A", "w,0", 'x,"1'], "E_CSV", "must be a CSV file, but row 3"),
        ([""], "E_COLUMN", "must have the column 'VolumeName'"),
    ],
)
def test_bad_tables(tmp_path: Path, lines: list[str], code: str, sentence: str) -> None:
    path = write_csv(tmp_path / "t.csv", *lines)
    with refusal(code) as caught:
        read_table(path, required=("VolumeName", "A"), allow_others=False)
    assert sentence in caught.value.sentence


def test_misspelt_column_is_named(tmp_path: Path) -> None:
    header = ",".join(LABEL_COLUMNS).replace("Atelectasis", "Atelectasia")
    with pytest.raises(CtscribeError, match="lacks it and has 'Atelectasia'"):
        read_labels(write_csv(tmp_path / "l.csv", header))


def test_wrong_encoding_and_missing_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", "VolumeName", "şüphe", encoding="cp1254")
    with refusal("E_ENCODING", r"must be UTF-8 .* line 2 holds .* 0xFE"):
        read_table(path, required=("VolumeName",))
    with pytest.raises(CtscribeError, match="must exist"):
        read_table(tmp_path / "none.csv", required=("VolumeName",))


def test_exclusion_list(tmp_path: Path) -> None:
    path = tmp_path / "no_chest_train.txt"
    assert read_no_chest(path) == frozenset()
    path.write_text("train_1_a_1.nii.gz\n\ntrain/train_2/train_2_a/train_2_a_1.nii.gz\n")
    assert read_no_chest(path) == {"train_1_a_1.nii.gz", "train_2_a_1.nii.gz"}


NAME = "train_1_a_1.nii.gz"


def metadata_row(**cells: str) -> dict[str, str]:
    return {**dict.fromkeys(METADATA_COLUMNS, ""), "VolumeName": NAME, **cells}


def test_metadata_as_published() -> None:
    row = parse_metadata(
        metadata_row(
            XYSpacing="[0.68359375, 0.7]",
            ZSpacing="1.5",
            RescaleSlope="1",
            RescaleIntercept="-8192.0",
            ImagePositionPatient="[-170.5, -160, 3e2]",
            ImageOrientationPatient="['1', '0', '0', '0', '1', '0']",
            NumberofSlices="300.0",
            ConvolutionKernel="Br40d",
        )
    )
    assert row.spacing_mm == (0.68359375, 0.7, 1.5)
    assert (row.slope, row.intercept) == (1.0, -8192.0)
    assert row.position_lps_mm == (-170.5, -160.0, 300.0)
    assert row.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert row.num_slices == 300


def test_empty_metadata_is_none() -> None:
    cells = {"ZSpacing": "nan", "XYSpacing": "[nan, nan]", "ImagePositionPatient": "[]"}
    row = parse_metadata(metadata_row(**cells))
    assert row.spacing_mm is None
    assert row.slope is None
    assert row.position_lps_mm is None


@pytest.mark.parametrize(
    ("age", "years"),
    [(" 036Y", 36.0), ("006M", 0.5), ("012", None), ("about 40", None), ("999Y", None)],
)
def test_ages(age: str, years: float | None) -> None:
    cells = metadata_row(PatientAge=age)
    assert report_fields(NAME, ("Normal.",), cells, {})["age_years"] == years


@pytest.mark.parametrize("cell", ["[0.7]", "[0.7, 0.7, 0.7]", "0.7 by 0.7", "[0.7, x]"])
def test_bad_metadata_names_volume_and_cell(cell: str) -> None:
    with refusal("E_METADATA") as caught:
        parse_metadata(metadata_row(XYSpacing=cell))
    assert NAME in caught.value.sentence
    assert cell in caught.value.sentence


def test_report_sections() -> None:
    fields = report_fields(NAME, (" Heart\n normal. ", "Not given."), {}, {})
    assert (fields["findings"], fields["impression"]) == ("Heart normal.", "")
    assert (
        report_fields(NAME, ("findings: A.\nIMPRESSION: Not given.",), {}, {})["impression"] == ""
    )


@pytest.mark.parametrize("text", ["", "  \n", "Not given.", "NaN", "N/A", "-", "not given"])
def test_empty_findings_are_refused(text: str) -> None:
    with refusal("E_EMPTY_REPORT", "must have findings"):
        report_fields(NAME, (text, "Normal."), {}, {})


def test_labels_in_order_and_checked() -> None:
    row = {**dict.fromkeys(LABEL_COLUMNS, "0"), "VolumeName": NAME, "Cardiomegaly": "1.0"}
    assert report_fields(NAME, ("x",), {}, row)["labels"] == (0, 0, 1, *[0] * 15)
    with pytest.raises(CtscribeError, match="0 or 1 for 'Emphysema', but '2'"):
        report_fields(NAME, ("x",), {}, {**row, "Emphysema": "2"})


def test_scanner_and_patient_are_read_in_ct_rates_columns_or_a_manifests() -> None:
    theirs = metadata_row(PatientAge="036Y", PatientSex="F", Manufacturer="Siemens Healthineers")
    ours = {"age": "36", "sex": "F", "manufacturer": "Siemens Healthineers"}
    assert report_fields(NAME, ("x",), theirs, {}) == report_fields(NAME, ("x",), ours, {})
    nothing = report_fields(NAME, ("x",), metadata_row(), {})
    assert (nothing["manufacturer"], nothing["sex"], nothing["age_years"]) == (None, None, None)
    for cells in ({"sex": "female"}, {"age": "061Y"}, {"age": "131"}):
        with pytest.raises(CtscribeError, match="E_METADATA"):
            report_fields(NAME, ("x",), cells, {})
