"""Files as the challenge's scorer, its submissions and CT-CHAT have them, in our own words."""

from pathlib import Path
from typing import Any

import pytest

from ctscribe.measure.shapes import reports_in_json
from tests.refusals import refusal

PATH = Path("p.json")
REPORTS = [("valid_1_a_1.mha", "Findings: A. Impression: B."), ("valid_2_a_1.mha", "Clear.")]
ENTRIES = [{"input_image_name": n, "report": text} for n, text in REPORTS]
SUBMITTED = {
    "name": "Generated reports",
    "type": "Report generation",
    "version": {"major": 1, "minor": 0},
    "generated_reports": ENTRIES,
}
INTERFACE = {"slug": "generated-reports", "kind": "Anything"}


def job(*reports: dict[str, str]) -> dict[str, Any]:
    """As the scorer finds each container's run in predictions.json."""
    value = {"generated_reports": list(reports)}
    outputs = [{"value": 3.5, "interface": {"slug": "seconds"}}, {"value": value}]
    return {"pk": "0", "status": "Succeeded", "inputs": [], "outputs": outputs}


@pytest.mark.parametrize(
    "content",
    [
        SUBMITTED,
        [{"outputs": [{"value": SUBMITTED, "interface": INTERFACE}]}],
        {"outputs": [{"value": SUBMITTED}]},
        [job(*ENTRIES)],
        [job(entry) for entry in ENTRIES],
    ],
    ids=["flat", "nested", "one job", "other outputs", "a job for each scan"],
)
def test_the_challenges_files_are_read_flat_and_nested(content: object) -> None:
    assert reports_in_json(PATH, content) == (REPORTS, 0)


def asked(image: str, *turns: tuple[str, str]) -> dict[str, Any]:
    return {
        "image": image,
        "conversations_out": [{"question": q, "answer": a} for q, a in turns],
    }


def true(image: str, *turns: tuple[str, str, str]) -> dict[str, Any]:
    conversations = []
    for question, answer, kind in turns:
        conversations.append({"from": "human", "value": f"<image>\n{question}", "type": kind})
        conversations.append({"from": "gpt", "value": answer, "type": kind})
    return {"id": f"{image}_{len(turns)}", "image": image, "conversations": conversations}


WRITE = "Write the report.<report_generation>"


@pytest.mark.parametrize(
    ("content", "expected", "others"),
    [
        ([asked("a.npz", (WRITE, "A."))], ["A."], 0),
        # Other kinds beside the report, in one conversation or in entries of their own.
        (
            [asked("a.npz", ("How old?<short_answer>", "50"), (WRITE, "A."))],
            ["A."],
            1,
        ),
        (
            [
                asked("a.npz", ("How old?<short_answer>", "50")),
                asked("a.npz", ("Why?<long_answer>", "It is."), ("Or?<multiple_choice>", "(b)")),
                asked("a.npz", (WRITE, "A.")),
            ],
            ["A."],
            3,
        ),
        # Where no question is marked, one that names a report is the request.
        (
            [
                asked("a.npz", ("Is there an effusion?", "No."), ("Generate a report.", "A.")),
                asked("b.npz", ("Could you write its Report", "B."), ("How old?", "50")),
            ],
            ["A.", "B."],
            2,
        ),
        # Where none does, the only answer is the report.
        ([asked("a.npz", ("Describe the scan.", "A."))], ["A."], 0),
        (
            [
                true("a.nii.gz", ("Is there a report of fever?", "No.", "short_answer")),
                true("a.nii.gz", ("Write.", "A.", "report_generation")),
                true("b.nii.gz", ("How old?", "50", "x"), ("Go.", "B.", "report_generation")),
            ],
            ["A.", "B."],
            2,
        ),
    ],
)
def test_of_ct_chats_questions_the_reports_are_read_and_the_others_counted(
    content: object, expected: list[str], others: int
) -> None:
    found, passed_over = reports_in_json(PATH, content)
    assert ([text for _, text in found], passed_over) == (expected, others)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([asked("a.npz", ("How old?<short_answer>", "50"))], "none of its 1 questions asks"),
        ([asked("a.npz", (WRITE, "A."), (WRITE, "B."))], "entry 1 lacks one report"),
        ([asked("a.npz", ("Which?", "A."), ("What?", "B."))], "entry 1 lacks one report"),
        ([asked("a.npz")], "entry 1 lacks one report"),
        ([{"outputs": []}], "entry 1 lacks a name"),
        ([{"outputs": [{"value": {"generated_reports": []}}]}], "no list of reports"),
        ([{"name": "a", "report": "true", "prediction": "said"}], "report beside prediction"),
        ([{"outputs": [{"value": {"generated_reports": [{"report": "x"}]}}]}], "lacks a name"),
    ],
)
def test_what_holds_no_reports_is_refused(content: object, told: str) -> None:
    with refusal("E_PREDICTION", told):
        reports_in_json(PATH, content)
