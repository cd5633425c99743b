import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import write_rows
from ctscribe.base.tables import format_csv
from ctscribe.measure.predictions import (
    Format,
    NamedReport,
    Noticed,
    convert_predictions,
    format_written,
    read_predictions,
    read_written,
    tell_noticed,
)
from ctscribe.measure.scans import scored_text
from ctscribe.text.report_tables import volume_stem
from tests.refusals import refusal
from tests.studies import prediction, reported_studies, study_row

REPORT = NamedReport("valid_1_a_1", "A nodule is seen.", "Nodule.")
WORD = st.text(
    alphabet=st.characters(
        codec="utf-8",
        exclude_categories=["Cc", "Cs"],
        exclude_characters="<",  # with it special tokens begin, which are taken away on reading
    ),
    min_size=1,
)


def saved(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def conversation(image: str, *said: str) -> dict[str, object]:
    """As CT-CHAT keeps it: a human and the model in turn."""
    turns = zip(itertools.cycle(("human", "gpt")), said, strict=False)
    return {"image": image, "conversations": [{"from": who, "value": text} for who, text in turns]}


def test_names_of_volumes_and_scans_find_their_study(tmp_path: Path) -> None:
    studies = reported_studies(3)
    reports = {"valid_0_a_1.nii.gz": "zero", "valid_1_a": "one", "valid_2_a_1.mha": "two"}
    rows = read_predictions(saved(tmp_path / "p.json", reports), studies)
    assert [(row.scan_id, row.patient_id, row.findings) for row in rows] == [
        ("valid_0_a", "valid_0", "zero"),
        ("valid_1_a", "valid_1", "one"),
        ("valid_2_a", "valid_2", "two"),
    ]
    assert [row.volume_name for row in rows] == [study.volume_name for study in studies]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_of_several_reconstructions_the_prepared_one_counts(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    studies = reported_studies(2)
    reports = {f"valid_0_a_{i}.nii.gz": f"report {i}" for i in order}
    reports |= {f"valid_1_a_{i}.nii.gz": f"report {i}" for i in order if i != 1}
    rows = read_predictions(saved(tmp_path / "p.json", reports), studies)
    assert [(row.scan_id, row.findings) for row in rows] == [
        ("valid_0_a", "report 1"),
        ("valid_1_a", "report 2"),
    ]


def test_a_csv_and_our_rows_say_the_same(tmp_path: Path) -> None:
    studies = reported_studies(2)
    ours = [prediction(study) for study in studies]
    write_rows(tmp_path / "p.jsonl", ours)
    assert read_predictions(tmp_path / "p.jsonl", studies) == ours
    lines = [f'{row.volume_name},"{row.findings}","{row.impression}"' for row in ours]
    path = tmp_path / "p.csv"
    path.write_text("VolumeName,Findings_EN,Impressions_EN\n" + "\n".join(lines))
    unknown = {"num_tokens": None, "finished": None}
    assert read_predictions(path, studies) == [row.model_copy(update=unknown) for row in ours]


def test_names_of_no_study_are_refused(tmp_path: Path) -> None:
    reports = {"valid_0_a_1.nii.gz": "x", **{f"valid_{i}_a_1.nii.gz": "x" for i in range(5, 9)}}
    told = r"4 do not, such as valid_5_a_1, valid_6_a_1.*E_PREDICTION"
    with pytest.raises(CtscribeError, match=told):
        read_predictions(saved(tmp_path / "p.json", reports), reported_studies(2))


@pytest.mark.parametrize(
    "content",
    [
        {"generated_reports": [{"input_image_name": "valid_1_a_1.mha", "report": "Words."}]},
        [{"input_image_name": "valid_1_a_1.mha", "report": "Words."}],
        {"valid_1_a_1.nii.gz": "Words."},
        {"reports": {"valid_1_a_1": "Words."}},
        [{"VolumeName": "a/b/valid_1_a_1.nii.gz", "generated_report": "Words."}],
        [{"id": "7", **conversation("valid_1_a_1.nii.gz", "<image>Write.", "Words.")}],
        [
            conversation(
                *("valid_1_a_1.npz", "Is there an effusion?<short_answer>", "No."),
                *("Write.<report_generation>", "Words."),
            )
        ],
        [
            {
                "image": "valid_1_a_1.nii.gz",
                "conversations_out": [
                    {"question": "How old?<short_answer>", "answer": "50"},
                    {"question": "Write.<report_generation>", "answer": "Words."},
                ],
            }
        ],
    ],
)
def test_other_tools_files_are_read(tmp_path: Path, content: object) -> None:
    path = saved(tmp_path / "p.json", content)
    assert read_written(path) == [NamedReport("valid_1_a_1", "Words.", "")]


JSON_FORMS: tuple[Format, ...] = ("vlm3d", "vlm3d-nested", "ct-chat", "ct-chat-truth")
SUFFIXES = {"csv": "csv", "jsonl": "jsonl"}


@pytest.mark.parametrize("form", ["csv", "jsonl", *JSON_FORMS])
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=3))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, form: Format, sections: list[tuple[str, str]]
) -> None:
    reports = [NamedReport(f"v_{i}", f"F. {f}", f"I. {j}") for i, (f, j) in enumerate(sections)]
    path = tmp_path_factory.getbasetemp() / f"any.{SUFFIXES.get(form, 'json')}"
    path.write_text(format_written(reports, form), encoding="utf-8", newline="")
    again = read_written(path)
    assert [r.name for r in again] == [r.name for r in reports]
    scored = [[scored_text(r.findings, r.impression) for r in rs] for rs in (reports, again)]
    assert scored[0] == scored[1]


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize(
    "text",
    ["Findings:  A.\n\nImpression: B. ", " A nodule .", "FINDINGS: A.", "A. impression: B", "Ödem"],
)
def test_a_report_of_one_text_stays_as_it_stood(tmp_path: Path, form: Format, text: str) -> None:
    [read] = read_written(saved(tmp_path / "p.json", {"v_1.mha": text}))
    assert read.whole == text
    (tmp_path / "again.json").write_text(format_written([read], form), encoding="utf-8")
    [again] = read_written(tmp_path / "again.json")
    assert (again, again.whole) == (read, text)


def test_the_challenges_key_is_the_name_up_to_its_last_point() -> None:
    content: Any = json.loads(format_written([REPORT], "vlm3d"))
    [entry] = content["generated_reports"]
    assert entry["input_image_name"].rsplit(".", 1)[0] == "valid_1_a_1"
    # Its references have these headings, and its scorer leaves them.
    assert entry["report"] == "Findings: A nodule is seen. Impression: Nodule."
    assert json.loads(format_written([REPORT], "vlm3d-nested")) == [
        {"outputs": [{"value": content}]}
    ]


def test_ct_chats_files_have_its_fields() -> None:
    [said] = json.loads(format_written([REPORT], "ct-chat"))
    assert said.keys() == {"image", "conversations_out"}
    assert said["image"] == "valid_1_a_1.npz"
    [turn] = said["conversations_out"]
    assert turn.keys() == {"question", "answer"}
    assert turn["question"].endswith("<report_generation>")
    [true] = json.loads(format_written([REPORT], "ct-chat-truth"))
    assert true.keys() == {"id", "image", "conversations"}
    human, model = true["conversations"]
    assert (human["from"], model["from"]) == ("human", "gpt")
    assert human["type"] == model["type"] == "report_generation"
    assert model["value"] == turn["answer"]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_special_tokens_are_taken_away_and_counted(tmp_path: Path, suffix: str) -> None:
    studies = reported_studies(3)
    texts = ["<s> A nodule. </s>", "<|begin_of_text|>A nodule.<|eot_id|>", "A nodule."]
    names = [study.volume_name for study in studies]
    path = tmp_path / f"p.{suffix}"
    if suffix == "csv":
        path.write_text(format_csv([("VolumeName", "report"), *zip(names, texts, strict=True)]))
    elif suffix == "json":
        saved(path, dict(zip(names, texts, strict=True)))
    else:
        write_rows(path, [prediction(s, t) for s, t in zip(studies, texts, strict=True)])
    noticed = Noticed()
    rows = read_predictions(path, studies, noticed=noticed)
    assert [row.findings for row in rows] == ["A nodule."] * 3
    assert noticed.special_tokens == 2
    assert tell_noticed(noticed.facts()) == [
        "2 reports held special tokens of a language model, which were taken away"
    ]


def test_nothing_but_special_tokens_is_no_report(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.json", {"a": "<s></s>", "b": "N/A</s>"})
    assert [(r.findings, r.whole) for r in read_written(path)] == [("", None)] * 2
    write_rows(tmp_path / "p.jsonl", [prediction(study_row("valid_1_a_1.nii.gz"), "N/A</s>")])
    [row] = read_predictions(tmp_path / "p.jsonl", [study_row("valid_1_a_1.nii.gz")])
    assert row.findings == ""


def test_converting_needs_a_name_and_the_true_reports_for_ct2rep(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.json", {"valid_1_a_1.mha": "A nodule."})
    with refusal("E_OPTION", "--references"):
        convert_predictions(path, tmp_path / "res.csv", "ct2rep", None, Noticed())
    with refusal("E_PREDICTION", r"must be called res\.csv"):
        studies = [study_row("valid_1_a_1.nii.gz")]
        convert_predictions(path, tmp_path / "x.csv", "ct2rep", studies, Noticed())
    assert not (tmp_path / "res.csv").exists()


def test_csv_has_ct_rates_columns() -> None:
    rows = list(csv.reader(format_written([REPORT], "csv").splitlines()))
    assert rows == [
        ["VolumeName", "Findings_EN", "Impressions_EN"],
        ["valid_1_a_1.nii.gz", "A nodule is seen.", "Nodule."],
    ]


def test_headings_part_the_sections_and_our_rows_keep_theirs(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.json", {"v": "Findings: A.\nImpression: B."})
    assert read_written(path) == [NamedReport("v", "A.", "B.")]
    row = prediction(study_row("v.nii.gz", findings="F", impression="I"))
    write_rows(tmp_path / "p.jsonl", [row])
    assert read_written(tmp_path / "p.jsonl") == [NamedReport("v", "F", "I")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "no list of reports"),
        (7, "no list of reports"),
        ({}, "no list of reports"),
        ([{"report": "x"}], "entry 1 lacks a name"),
        ([{"name": "a", "report": "x"}, {"name": "b"}], "entry 2 lacks one report"),
        ([{"name": "a", "report": 5}], "entry 1 lacks one report"),
        (["x"], "entry 1 lacks a name"),
        ({"a.nii.gz": "x", "a.mha": "y"}, "a occurs twice"),
        (
            [{"image": "a", "conversations": [{"from": "gpt", "value": "x"}] * 2}],
            "entry 1 lacks one report",
        ),
        ([{"image": "a", "conversations": 5}], "entry 1 lacks one report"),
        ([{"image": "a", "conversations": ["x", None]}], "entry 1 lacks one report"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(CtscribeError, match=told) as caught:
        read_written(saved(tmp_path / "p.json", content))
    assert caught.value.code == "E_PREDICTION"


def test_lines_of_another_tool_are_read_as_its_list_is(tmp_path: Path) -> None:
    entries = [{"VolumeName": "a.nii.gz", "report": "Clear."}, {"id": "b", "prediction": None}]
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
    found = [NamedReport("a", "Clear.", ""), NamedReport("b", "", "")]
    assert read_written(lines) == read_written(saved(tmp_path / "p.json", entries)) == found


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.jsonl", '{"name": "a", "report": "x"}\n{"name"\n', "line 2 is no JSON"),
        ("p.tsv", "VolumeName\treport\na\tx\n", "its name ends in .tsv"),
        ("p.xlsx", "PK", "its name ends in .xlsx"),
    ],
)
def test_files_of_another_kind_are_named(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with refusal("E_PREDICTION", told):
        read_predictions(path, [])


def test_stems_lose_folders_and_image_suffixes_only() -> None:
    for name in ("v_1.nii.gz", "x/v_1.mha", "v_1.npz", " v_1 "):
        assert volume_stem(name) == "v_1"
    assert volume_stem("scan.2021.nii") == "scan.2021"


def test_an_empty_report_is_one_in_every_format_and_names_match_in_either_form(
    tmp_path: Path,
) -> None:
    studies = [study_row("hasta-\u00f6"), study_row("b")]
    names, texts = ("hasta-o\u0308", "b"), ("N/A", "Nodule.")
    rows = [{"name": name, "report": text} for name, text in zip(names, texts, strict=True)]
    (tmp_path / "p.csv").write_text(
        format_csv([("VolumeName", "report_text"), *zip(names, texts, strict=True)]), "utf-8"
    )
    (tmp_path / "p.json").write_text(json.dumps(rows), "utf-8")
    (tmp_path / "p.jsonl").write_text(
        "\n".join(
            json.dumps(
                {
                    **dict.fromkeys(("scan_id", "patient_id", "volume_name"), row["name"]),
                    "findings": row["report"],
                    "impression": "",
                }
            )
            for row in rows
        )
        + "\n\n",
        "utf-8-sig",
    )
    for suffix in ("csv", "json", "jsonl"):
        found = read_predictions(tmp_path / f"p.{suffix}", studies)
        assert [(row.scan_id, row.findings) for row in found] == [
            ("hasta-\u00f6", ""),
            ("b", "Nodule."),
        ]


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"name": "a", "report": "x\\ud800"}]')
    with refusal("E_JSON", "half a character"):
        read_written(tmp_path / "p.json")
