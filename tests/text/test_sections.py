import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.text.sections import (
    headed_report,
    join_report,
    sentence_spans,
    split_report,
    split_sentences,
)

SECTION = st.text(alphabet='abcXYZ .,;?"\n:0123456789', max_size=80)


@given(SECTION, SECTION)
def test_sections_survive_the_round_trip(findings: str, impression: str) -> None:
    assert split_report(join_report(findings, impression)) == (findings.strip(), impression.strip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Findings: A.\nImpression: B.", ("A.", "B.")),
        ("FINDINGS : A. IMPRESSION: B.", ("A.", "B.")),
        ("Only text.", ("Only text.", "")),
        ("Impression: B.", ("", "B.")),
        ("", ("", "")),
        ("Findings: A.", ("A.", "")),
        ("**Findings:** A.\n\n**Impression:** B.", ("A.", "B.")),
        ("**FINDINGS**: A.\n\n__Impression__: B.", ("A.", "B.")),
        ("## Findings\nA.\n\n## Impression\r\n1. B.", ("A.", "1. B.")),
        ("\n  FINDINGS\n\nA.\n\n  IMPRESSION  \n\nB.", ("A.", "B.")),
        ("Findings：A.\nImpression：B.", ("A.", "B.")),
        ("Findings: A.Impression: B.", ("A.", "B.")),
        ("A. **Impression:** B.", ("A.", "B.")),
        ("# Findings: A.\n# Impression: B.", ("A.", "B.")),
        ("Findings: A. # Impression: B.", ("A. #", "B.")),
        ("Findings: A. * Impression: B.", ("A. *", "B.")),
        (
            "Seen with no overall impression\nof mass.",
            ("Seen with no overall impression\nof mass.", ""),
        ),
    ],
)
def test_answers_with_and_without_headings(text: str, expected: tuple[str, str]) -> None:
    assert split_report(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 6.5x5.5 mm nodule. Heart normal.", ["A 6.5x5.5 mm nodule.", "Heart normal."]),
        ("Seen on 12.05.2020 too. New.", ["Seen on 12.05.2020 too.", "New."]),
        ("Seen on 12.05. 2020 too. New.", ["Seen on 12.05. 2020 too.", "New."]),
        ("In window; Aeration is normal", ["In window", "Aeration is normal"]),
        ('Normal. " Nodule on the left. " Cyst', ["Normal.", "Nodule on the left.", "Cyst"]),
        ("• One thing. • Another", ["One thing.", "Another"]),
        ("- One thing\n- Another", ["One thing", "Another"]),
        ("Normal.No mass.", ["Normal.", "No mass."]),
        ("Nodules (lymph node?) on the right.", ["Nodules (lymph node?) on the right."]),
        ("Edema in the fat? Correlate.", ["Edema in the fat?", "Correlate."]),
        ("The v. cava is wide. End.", ["The v. cava is wide.", "End."]),
        ("The 4. rib is cut. End.", ["The 4. rib is cut.", "End."]),
        ("Cyst in segment 4. The liver is large.", ["Cyst in segment 4.", "The liver is large."]),
        ("1. Nodule. 2. Effusion.", ["1. Nodule.", "2. Effusion."]),
        ("1) Nodule 2) Effusion (2) x", ["1) Nodule", "2) Effusion (2) x"]),
        (
            "Nodules in both lungs Hiatal hernia is seen",
            ["Nodules in both lungs", "Hiatal hernia is seen"],
        ),
        ("No Pleural effusion of the Lymph node", ["No Pleural effusion of the Lymph node"]),
        (
            "A long line of a report that was cut to a width of\nfifty signs. B",
            ["A long line of a report that was cut to a width of\nfifty signs.", "B"],
        ),
        (
            "A long line of a report that was cut to a width so\r\nfar",
            ["A long line of a report that was cut to a width so\r\nfar"],
        ),
        ("A short line\nanother", ["A short line", "another"]),
        ("Effusion: no. Cyst in no. 5 too.", ["Effusion: no.", "Cyst in no. 5 too."]),
        (
            "A long line of a report that begins another one.\nfar",
            ["A long line of a report that begins another one.", "far"],
        ),
        ('" . "', []),
    ],
)
def test_sentences_end_where_radiologists_end_them(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


@given(st.text(max_size=200) | st.from_regex(r"([a-zA]{1,60}[ .)\n1]){,9}", fullmatch=True))
def test_spans_are_ordered_disjoint_and_lose_no_letter(text: str) -> None:
    spans = sentence_spans(text)
    covered = "".join(text[start:end] for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert [c for c in covered if c.isalnum()] == [c for c in text if c.isalnum()]


def test_headings_stand_before_two_sections_and_one_stands_alone() -> None:
    assert headed_report(" A.", "B. ") == "Findings: A. Impression: B."
    assert [headed_report("A.", ""), headed_report("", "B."), headed_report("", " ")] == [
        "A.",
        "B.",
        "",
    ]
    assert split_report(headed_report("A.", "B.")) == ("A.", "B.")
