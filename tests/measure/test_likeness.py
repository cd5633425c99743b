import pytest

from ctscribe.measure.scores import template_statistics


def test_shared_words_are_counted_by_patients_not_reports() -> None:
    texts = [
        "Heart is normal. A nodule.",
        "Heart is normal! Effusion left.",
        "Alone here.",
        "Twin.",
    ]
    statistics = template_statistics(
        [(text, "") for text in [*texts, "Twin."]], ["a", "b", "c", "d", "d"], seed=0
    )
    # "heart is normal" belongs to two patients; "twin" to one patient twice.
    assert statistics["shared_token_share"] == pytest.approx(6 / (6 + 2 + 2 + 2 + 2))
    assert statistics["distinct_reports"] == 4
    assert statistics["repeated_share"] == pytest.approx(1 / 5)


def test_a_single_report_resembles_nobody() -> None:
    assert template_statistics([("One report only here.", "")], ["a"], seed=0)["self_bleu_4"] == 0


def test_equal_reports_have_self_bleu_one() -> None:
    texts = [("The same five words here.", "")] * 4
    assert template_statistics(texts, list("abcd"), seed=1)["self_bleu_4"] == pytest.approx(1)
