"""Manifests of own scans: sound ones are read to the letter, others name their rows."""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import is_file_name, nfc, printable
from ctscribe.data.manifest import list_source, safe_name
from ctscribe.text.findings import FINDINGS
from tests.refusals import refusal

list_manifest = partial(list_source, thin_mm=1.5)
HEADER = "volume,patient,scan,report\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "series").mkdir()
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "scans.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        list_manifest(path)
    assert caught.value.sentence.startswith(f"{path} must ")
    return caught.value


def test_every_column(folder: Path) -> None:
    labels = ",".join(str(index % 2) for index in range(18))
    text = (
        f"volume,patient,scan,split,findings,impression,manufacturer,sex,age,{','.join(FINDINGS)}\n"
        f'series,Müller 7,s 1,valid,"Heart\nlarge, ""wide"".",,ACME,F,61,{labels}\n\n'
        f"./x/../b.nii.gz,P2,s2,train,Clear.,Normal.,,,0.5,{labels}\n"
    )
    (first, second), skipped = list_manifest(write(folder, text))
    assert skipped == []
    assert first.volume_name == "s-1"
    assert (first.patient_id, first.scan_id, first.source_split) == ("Müller 7", "s 1", "valid")
    assert first.path == folder / "series"
    assert (first.findings, first.impression) == ('Heart large, "wide".', "")
    assert first.labels == tuple(index % 2 for index in range(18))
    assert (first.manufacturer, first.sex, first.age_years) == ("ACME", "F", 61.0)
    assert second.path == folder / "b.nii.gz"
    assert (second.manufacturer, second.sex, second.age_years) == (None, None, 0.5)
    assert first.metadata is None


def test_jsonl_says_the_same_as_csv(folder: Path) -> None:
    labels = dict.fromkeys(FINDINGS, 0) | {FINDINGS[3]: 1}
    row = {"volume": "a.nii.gz", "patient": "1", "scan": "1a", "age": 40, "report": "Clear."}
    lines = json.dumps({**row, **labels}) + "\n"
    csv = f"{','.join((*row, *labels))}\n{','.join(map(str, (*row.values(), *labels.values())))}\n"
    as_jsonl = list_manifest(write(folder, lines, "scans.JSONL"))
    assert as_jsonl == list_manifest(write(folder, "\ufeff" + csv))
    assert as_jsonl[0][0].labels == tuple(labels.values())
    assert as_jsonl[0][0].source_split == "train"


def test_one_text_is_split_at_its_headings(folder: Path) -> None:
    text = HEADER + 'a.nii.gz,1,1,"FINDINGS: Clear.\nIMPRESSION: Normal."\nb.nii.gz,2,2,Clear.\n'
    first, second = list_manifest(write(folder, text))[0]
    assert (first.findings, first.impression) == ("Clear.", "Normal.")
    assert (second.findings, second.impression) == ("Clear.", "")


def test_missing_files_and_texts_are_skipped_alone(folder: Path) -> None:
    rows = (
        "a.nii.gz,1,1,",
        "z.nii.gz,2,2,Clear.",
        "b.nii.gz,3,3,Clear.",
        "c.nii.gz,4,4,Not given.",
    )
    text = HEADER + "\n".join(rows)
    volumes, skipped = list_manifest(write(folder, text))
    assert [volume.volume_name for volume in volumes] == ["3"]
    assert [(row.volume_name, row.code) for row in skipped] == [
        ("1", "E_EMPTY_REPORT"),
        ("2", "E_MISSING"),
        ("4", "E_EMPTY_REPORT"),
    ]


def test_scans_without_reports_are_listed_to_be_drafted(folder: Path) -> None:
    text = "volume,patient,scan,kernel,why\na.nii.gz,1,1,Br40d,the only CT series\nseries,2,2,,\n"
    volumes, skipped = list_manifest(write(folder, text))
    assert skipped == []
    assert [(one.findings, one.labels, one.source_split) for one in volumes] == 2 * [
        ("", None, "valid")
    ]


@pytest.mark.parametrize(
    ("words", "splits"),
    [
        ("train valid", [None, None]),
        ("train test", [None, "test"]),
        ("train valid test", ["train", "validation", "test"]),
        ("valid test", ["validation", "test"]),
    ],
)
def test_with_test_the_splits_are_the_users(
    folder: Path, words: str, splits: list[str | None]
) -> None:
    rows = [
        f"{name}.nii.gz,{name},{name},x,{word}"
        for name, word in zip("abc", words.split(), strict=False)
    ]
    text = "\n".join([HEADER[:-1] + ",split", *rows])
    volumes, _ = list_manifest(write(folder, text))
    assert [one.split for one in volumes] == splits
    tested = [one.source_split == "valid" for one in volumes]
    assert tested == [
        split in ("test", None) and word != "train"
        for split, word in zip(splits, words.split(), strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the column 'volume', but lacks it"),
        (HEADER, "it has no row"),
        ("volume;patient;scan;report\na;1;1;x\n", "columns parted by commas"),
        ("volume,patient,report\na,1,x\n", "the column 'scan', but lacks it"),
        ("volume,patient,scan,impression\na,1,1,x\n", "either 'report', or 'findings' and"),
        (HEADER[:-1] + ",impression\na,1,1,x,y\n", "either 'report', or"),
        (HEADER[:-1] + ",findings\na,1,1,x,y\n", "either 'report', or"),
        (HEADER.replace("patient", "Pateint") + "a,1,1,x\n", "lacks it and has 'Pateint'"),
        (HEADER[:-1] + ",cardiomegaly\na,1,1,x,0\n", "did you mean 'Cardiomegaly'"),
        (HEADER[:-1] + ",zzzz\na,1,1,x,0\n", "'zzzz' is unknown; mend what is named"),
        (HEADER[:-1] + ",scan\na,1,1,x,0\n", "two 'scan'"),
        (HEADER[:-1] + ",Cardiomegaly\na,1,1,x,0\n", "but lacks 'Medical material'"),
        (HEADER + "a.nii.gz,1,1\n", "4 cells in each row, one per column, but row 2 has 3"),
        (HEADER + 'a.nii.gz,1,1,"x" y\n', "but row 2: "),
        (HEADER + f"a.nii.gz,1,1,{'x' * 1_000_001}\n", "at most 1000000 characters"),
        (HEADER + "/etc/passwd,1,1,x\n", "row 2: volume must be a path inside"),
        (HEADER + "../a.nii.gz,1,1,x\n", "row 2: volume must be a path inside"),
        (HEADER + "series/../../a.nii.gz,1,1,x\n", "row 2: volume must be a path inside"),
        (HEADER + "..,1,1,x\n", "row 2: volume must be a path inside"),
        (HEADER + ",1,1,x\n", "row 2: volume must be 1 to 4096 printable"),
        (HEADER + "a\0b,1,1,x\n", "row 2: volume must be 1 to 4096 printable"),
        (HEADER + "a.nii.gz,,1,x\n", "row 2: patient must be 1 to 100 printable"),
        (HEADER + "a.nii.gz,nan,1,x\n", "row 2: patient must be named, but is 'nan'"),
        (HEADER + "a.nii.gz,1,\u202eabc,x\n", "row 2: scan must be 1 to 100 printable"),
        (HEADER + "a.nii.gz,1,../..,x\n", "row 2: scan must have a letter or digit"),
        (HEADER + "a.nii.gz,1,1,x\nb.nii.gz,1,1,x\n", "row 3: scan as in row 2"),
        (HEADER + "a.nii.gz,1,1,x\nb.nii.gz,1,1.nii.gz,x\n", "row 3: scan as in row 2"),
        (HEADER + "a.nii.gz,1,\u00f6,x\nb.nii.gz,1,o\u0308,x\n", "row 3: scan as in row 2"),
        (HEADER + "a.nii.gz,1,1,x\n./a.nii.gz,2,2,x\n", "row 3: volume as in row 2"),
        (HEADER[:-1] + ",split\na.nii.gz,1,1,x,tset\n", "split train, valid or test, but 'tset'"),
        (
            HEADER[:-1] + ",split\na.nii.gz,1,1,x,\n",
            "1 must have split train, valid or test, but ''",
        ),
        (
            HEADER[:-1] + ",split\na.nii.gz,1,1,x,train\nb.nii.gz,1,2,x,valid\n",
            "row 3: patient in another split than in row 2",
        ),
        (HEADER[:-1] + ",masks\na.nii.gz,1,1,x,../m\n", "row 2: masks must be a path inside"),
        (HEADER[:-1] + ",masks\na.nii.gz,1,1,x,none\n", "row 2: masks must be a folder of masks"),
        (HEADER[:-1] + ",masks\na.nii.gz,1,1,x,.\n", "row 2: masks must be a path inside"),
        (HEADER[:-1] + ",age\na.nii.gz,1,1,x,061Y\n", "an age in years from 0 to 130"),
        (HEADER[:-1] + ",age\na.nii.gz,1,1,x,131\n", "an age in years from 0 to 130"),
        (HEADER[:-1] + ",sex\na.nii.gz,1,1,x,female\n", "row 2: 1 must have sex F, M, O or none"),
        (
            HEADER[:-1] + f",{','.join(FINDINGS)}\na.nii.gz,1,1,x{',0' * 17},2\n",
            "row 2: 1 must have 0 or 1 for 'Interlobular septal thickening', but '2'",
        ),
    ],
)
def test_faults_name_their_row(folder: Path, text: str, says: str) -> None:
    error = refused(write(folder, text))
    assert error.code == "E_MANIFEST"
    assert says in error.sentence


def test_many_faults_are_told_together(folder: Path) -> None:
    rows = "".join(f"a{row}.nii.gz,,{row},x\n" for row in range(7))
    sentence = refused(write(folder, HEADER + rows)).sentence
    assert all(f"row {row}: patient" in sentence for row in (2, 3, 4))
    assert "and 4 more; mend what is named" in sentence
    assert "row 5" not in sentence


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "row 2 is no JSON"),
        ("[" * 100_000, "row 2 is no JSON"),
        ("1" * 5000, "row 2 is no JSON"),
        ("[1]", "row 2 is no flat JSON object"),
        ('{"volume": "b", "patient": "2", "scan": "2", "report": "\\ud800"}', "half a character"),
        ('{"volume": "b", "patient": "2", "scan": "2", "report": "a\\u001b[2J"}', "control sign"),
        ("[]", "row 2 is no flat JSON object"),
        ("{}", "row 2: scan must be"),
        ('"text"', "row 2 is no flat JSON object"),
        ('{"volume": {"a": 1}}', "row 2 is no flat JSON object"),
        ('{"volume": [1]}', "row 2 is no flat JSON object"),
        ('{"scan": "1", "scan": "2"}', "two 'scan'"),
        (
            '{"volume": "b.nii.gz", "patient": "2", "scan": "2", "report": "x", "age": NaN}',
            "an age in years",
        ),
        ('{"volume": "b.nii.gz", "patient": null, "scan": "2"}', "row 2: patient must be 1"),
    ],
)
def test_faulty_lines_of_jsonl(folder: Path, line: str, says: str) -> None:
    good = '{"volume": "a.nii.gz", "patient": "1", "scan": "1", "report": "Clear."}\n'
    error = refused(write(folder, good + line, "scans.jsonl"))
    assert error.code == "E_MANIFEST"
    assert says in error.sentence


@pytest.mark.parametrize(
    ("encoding", "says"),
    [("cp1252", "line 2 holds the byte 0xFC"), ("utf-16", "line 1 holds UTF-16")],
)
def test_encodings_are_told_not_guessed(folder: Path, encoding: str, says: str) -> None:
    error = refused(write(folder, (HEADER + "a.nii.gz,Müller,1,x\n").encode(encoding)))
    assert error.code == "E_ENCODING"
    assert says in error.sentence


@given(st.text(max_size=150))
def test_safe_names_are_plain_file_names(scan: str) -> None:
    name = safe_name(scan)
    assert len(name.encode()) <= 100
    assert name == "" or is_file_name(name)
    assert name == printable(name) == nfc(name)
    assert name == Path(name).name or name == ""
    assert not name.startswith((".", "-"))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".csv", ".jsonl"]))
def test_any_bytes_give_rows_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    row = {"volume": "a.nii", "patient": "1", "scan": "1", "report": "Clear.", "age": "4"}
    csv = f"{','.join(row)}\n{','.join(row.values())}\n"
    changed = bytearray((json.dumps(row) if suffix == ".jsonl" else csv).encode())
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / f"mutated{suffix}"
    path.write_bytes(changed)
    try:
        volumes, skipped = list_manifest(path)
    except CtscribeError as error:
        assert error.code in {"E_MANIFEST", "E_ENCODING"}  # noqa: PT017
    else:
        assert len(volumes) + len(skipped) >= 1


def test_scans_of_any_script_and_any_capitals_have_files_of_their_own(folder: Path) -> None:
    scans = ["P1", "p1", "Иванов 1", "王小明", "hasta-o\u0308", "x y", "x/y"]
    for scan in range(len(scans)):
        (folder / f"{scan}.nii").touch()
    rows = [f"{n}.nii,{scan},{scan},Clear.\n" for n, scan in enumerate(scans)]
    listed, skipped = list_manifest(write(folder, HEADER + "".join(rows)))
    assert skipped == []
    names = [one.volume_name for one in listed]
    assert names[2:5] == ["Иванов-1", "王小明", "hasta-ö"]
    assert len({name.casefold() for name in names}) == len(names)
    assert [one.scan_id for one in listed[:2]] == ["P1", "p1"]
    assert names[0].startswith("P1-")
    assert names[1].startswith("p1-")
    # a name depends on the other scans, but not on their order
    again = list_manifest(write(folder, HEADER + "".join(rows[::-1])))[0]
    assert [one.volume_name for one in again] == names[::-1]


@pytest.mark.parametrize("column", ["volume", "masks"])
def test_paths_may_lead_outside_only_where_that_is_allowed(folder: Path, column: str) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a.nii").touch()
    (folder / "series" / "Lung nodule.nii").touch()
    cells = {"volume": "a.nii", "patient": "1", "scan": "1", "report": "x", "masks": ""}
    for place in ("../series", str(folder / "series")):
        told = json.dumps(cells | {column: place})
        path = write(folder / "in", told, "scans.jsonl")
        assert "--allow-outside" in refused(path).sentence
        (listed,), _ = list_manifest(path, allow_outside=True)
        found = listed.path if column == "volume" else listed.masks_dir
        assert found is not None
        assert found.samefile(folder / "series")


def test_labels_of_data_frames_and_hostile_scanners_are_read(folder: Path) -> None:
    labels = dict.fromkeys(FINDINGS, "0.0") | {FINDINGS[0]: "1.0", FINDINGS[1]: "True"}
    row = {"volume": "a.nii.gz", "patient": "1", "scan": "1", "report": "Clear."}
    row |= {"manufacturer": "GE\u2028\u001b[31mMedical\u0085", **labels}
    (listed,), _ = list_manifest(write(folder, json.dumps(row) + "\n\n", "scans.jsonl"))
    assert listed.labels == (1, 1, *[0] * 16)
    assert listed.manufacturer == "GE Medical"


def test_sources_are_told_apart(folder: Path) -> None:
    assert len(list_source(write(folder, HEADER + "a.nii.gz,1,1,Clear.\n"), 1.5)[0]) == 1
    for path, code in (
        (folder, "E_MISSING"),
        (folder / "none.csv", "E_MISSING"),
        (folder / "none.txt", "E_MISSING"),
        (folder / "a.nii.gz", "E_SOURCE"),
    ):
        with refusal(code):
            list_source(path, 1.5)


def test_a_row_may_choose_its_series(folder: Path) -> None:
    text = "volume,patient,scan,report,series\nseries,P1,s1,Clear.,5\nb.nii.gz,P2,s2,Clear.,\n"
    (first, second), _ = list_manifest(write(folder, text))
    assert (first.series, second.series) == ("5", None)
