import pytest

from ctscribe.measure.scores import template_statistics


def test_shared_words_are_counted_by_patients_not_reports() -> None:
    normal = ("Heart is normal. A nodule.", "Heart is normal! Effusion left.")
    texts = [(text, "") for text in (*normal, "Alone here.", "Twin.", "Twin.")]
    statistics = template_statistics(texts, list("abcdd"), seed=0)
    # "heart is normal" belongs to two patients; "twin" to one patient twice.
    assert statistics["shared_token_share"] == pytest.approx(6 / (6 + 2 + 2 + 2 + 2))
    assert statistics["distinct_reports"] == 4
    assert statistics["repeated_share"] == pytest.approx(1 / 5)


def test_a_single_report_resembles_nobody_and_equal_ones_each_other() -> None:
    assert template_statistics([("One report only here.", "")], ["a"], seed=0)["self_bleu_4"] == 0
    texts = [("The same five words here.", "")] * 4
    assert template_statistics(texts, list("abcd"), seed=1)["self_bleu_4"] == pytest.approx(1)
