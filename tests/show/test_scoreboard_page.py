import numpy as np
from matplotlib.figure import Figure

from ctscribe.base.figures import image_bytes
from ctscribe.show.marked_reports import compare_reports
from ctscribe.show.page import DrawnSlices
from ctscribe.show.score_figures import CaptionedFigure
from ctscribe.show.scoreboard import ShownStudy, StudyGroup, scoreboard_page
from ctscribe.show.tables import Table, Value


def page(reference: str = "Emphysema is seen.", study: str = "valid_1_a_1") -> str:
    table = Table(
        "Table 1", ("System", "Coverage"), (("Origin", Value(0.6, 0.5, 0.7, "†")), ("x", "–")),
        ("n < 5",), (1,),
    )  # fmt: skip
    shown = ShownStudy(
        compare_reports(study, reference=reference, prediction="Pleural effusion.", labels=None),
        DrawnSlices(
            {"lung −600/1500": np.zeros((2, 8, 8), dtype=np.uint8)},
            (5, 3),
            (10.0, -2.0),
            (1.5, 1.5),
        ),
    )
    figure = CaptionedFigure("A curve.", image_bytes(Figure(figsize=(1, 1)), "png"))
    groups = (
        StudyGroup("Alike", "As like as two peas.", (shown,)),
        StudyGroup("The worst study", "Lowest F1.", (shown,)),
    )
    return scoreboard_page("Board", ("one fact",), (table,), (figure,), groups)


def test_tables_plots_and_studies_are_there() -> None:
    text = page()
    assert "0.600<sup>†</sup><small>[0.500, 0.700]</small>" in text
    assert '<tr class="rule">' in text
    assert "n &lt; 5" in text
    assert 'src="data:image/png;base64,iVBOR' in text
    assert '<mark class="missing">Emphysema is seen. <small>missing: Emphysema</small>' in text
    assert '<mark class="wrong">Pleural effusion. <small>wrong: Pleural effusion</small>' in text
    assert text.count("<image ") == 4
    assert text.index("<h2>Alike</h2>") < text.index("<h2>The worst study</h2>")
    assert "As like as two peas." in text


def test_ids_stay_unique_with_several_studies() -> None:
    text = page()
    for name in ("study-1", "study-1-1", "study-1-2", "study-2", "study-2-2"):
        assert text.count(f'id="{name}"') == 1
        assert text.count(f'href="#{name}"') >= 1


def test_reports_and_names_are_escaped() -> None:
    hostile = "<script>alert(1)</script> Emphysema is seen."
    text = page(hostile, hostile)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)") == 4
