from ctscribe.text.findings import FINDINGS
from ctscribe.write.draft import finding_rows

TEXT = (
    "No pleural effusion was detected. A nodule of 6 mm is seen in the right lung.\n"
    "Nodule in the right lung. Nodule in the right lung."
)


def test_every_finding_has_a_row_whose_status_and_sentences_come_from_the_text() -> None:
    rows = {row.finding: row for row in finding_rows(TEXT)}
    assert tuple(row.finding for row in finding_rows(TEXT)) == FINDINGS
    nodule, effusion = rows["Lung nodule"], rows["Pleural effusion"]
    assert nodule.status == "present"
    assert nodule.sentences == (
        "A nodule of 6 mm is seen in the right lung.",
        "Nodule in the right lung.",
    )
    assert effusion.status == "absent"
    assert effusion.sentences == ("No pleural effusion was detected.",)
    assert (rows["Emphysema"].status, rows["Emphysema"].sentences) == ("not mentioned", ())


def test_an_affirmed_mention_outweighs_a_denied_one() -> None:
    text = "No nodule was detected in the left lung. A nodule is seen in the right lung."
    row = next(row for row in finding_rows(text) if row.finding == "Lung nodule")
    assert (row.status, row.sentences) == ("present", ("A nodule is seen in the right lung.",))
