from transformers import PreTrainedTokenizerBase

from ctscribe.text.findings import FINDINGS
from ctscribe.write.evidence import ReadReport, read_report

NODULE, EFFUSION = FINDINGS.index("Lung nodule"), FINDINGS.index("Pleural effusion")


def test_sentences_say_what_is_there_and_what_is_not(report: ReadReport) -> None:
    said = [(s.section, s.text, s.present, s.absent) for s in report.sentences]
    assert said == [
        ("findings", "The trachea is open.", (), ()),
        ("findings", "A nodule of 6 mm is seen.", (NODULE,), ()),
        ("findings", "No pleural effusion.", (), (EFFUSION,)),
        ("impression", "Lung nodule.", (NODULE,), ()),
    ]


def test_tokens_spell_their_sentences(
    report: ReadReport, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = tokenizer(report.answer, add_special_tokens=False).input_ids
    assert report.tokens.shape == (4, len(ids))
    for sentence, members in zip(report.sentences, report.tokens.tolist(), strict=True):
        spelt = tokenizer.decode([i for i, member in zip(ids, members, strict=True) if member])
        assert spelt.strip() == sentence.text
    # no token is in two sentences; the headings are in none
    assert int(report.tokens.sum(0).max()) == 1
    assert not report.tokens[:, 0].any()


def test_an_empty_report_has_no_sentences(tokenizer: PreTrainedTokenizerBase) -> None:
    assert read_report("", "", tokenizer).tokens.shape[0] == 0
