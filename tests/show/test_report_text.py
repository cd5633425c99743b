from collections.abc import Callable

from ctscribe.base.about import RESEARCH_USE
from ctscribe.show.patient_report import WIDTH, PatientReport, to_text

MakeReport = Callable[..., PatientReport]


def test_the_text_holds_sections_and_warnings_within_the_width(make_report: MakeReport) -> None:
    long = tuple(f"Sentence {number} of the findings is here." for number in range(30))
    text = to_text(make_report(findings=long, warnings=("This may not be a chest.",)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("DRAFT WRITTEN BY A MODEL, NOT VERIFIED.")
    assert RESEARCH_USE in " ".join(text.split())
    assert "\nFINDINGS\nSentence 0 of" in text
    assert "\nIMPRESSION\nNodule in the left lung.\n" in text
    assert "Warning: This may not be a chest." in text
    assert "2 axial slices between −142.5 mm and 12.0 mm" in " ".join(text.split())


def test_terminal_codes_are_not_passed_on(make_report: MakeReport) -> None:
    text = to_text(make_report(findings=("a\x1b[2Jb\rc\u202ed",)))
    assert "a⟨U+001B⟩[2Jb c⟨U+202E⟩d" in text
