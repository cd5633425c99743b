import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.data.ct_rate import LABEL_COLUMNS, METADATA_COLUMNS, parse_metadata
from ctscribe.text.report_tables import report_fields

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
    row = parse_metadata(metadata_row(ZSpacing="nan"))
    assert row.spacing_mm is None
    assert row.slope is None


@pytest.mark.parametrize(
    ("age", "years"), [(" 036Y", 36.0), ("006M", 0.5), ("012", None), ("about 40", None)]
)
def test_ages(age: str, years: float | None) -> None:
    cells = metadata_row(PatientAge=age)
    assert report_fields(NAME, ("Normal.",), cells, {})["age_years"] == years


@pytest.mark.parametrize("cell", ["[0.7]", "[0.7, 0.7, 0.7]", "0.7 by 0.7", "[0.7, x]"])
def test_bad_metadata_names_volume_and_cell(cell: str) -> None:
    with pytest.raises(CtscribeError) as caught:
        parse_metadata(metadata_row(XYSpacing=cell))
    assert caught.value.code == "E_METADATA"
    assert NAME in caught.value.sentence
    assert cell in caught.value.sentence


def test_report_sections() -> None:
    fields = report_fields(NAME, (" Heart\n normal. ", "Not given."), {}, {})
    assert (fields["findings"], fields["impression"]) == ("Heart normal.", "")
    assert (
        report_fields(NAME, ("findings: A.\nIMPRESSION: Not given.",), {}, {})["impression"] == ""
    )


@pytest.mark.parametrize("text", ["", "  \n", "Not given."])
def test_empty_findings_are_refused(text: str) -> None:
    with pytest.raises(CtscribeError, match="must have findings") as caught:
        report_fields(NAME, (text, "Normal."), {}, {})
    assert caught.value.code == "E_EMPTY_REPORT"


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
