"""BLEU-4 once more, by another hand: sacrebleu on the same strings (Post 2018)."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from ctscribe.evaluate.language import Profile, bleu_4, normalise

NUM_CHECKED = 500
"""Reports that are scored twice: sacrebleu takes a millisecond for each."""


def cross_check(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile
) -> dict[str, float | int | str]:
    """Corpus BLEU-4 of the first reports by sacrebleu and by us.

    Both split the normalised texts at white space. They agree to 1e-9 wherever one sequence of
    four words is right.

    Returns:
        ``bleu_4`` and ``sacrebleu`` in [0, 1], ``scans``, and sacrebleu's ``signature``.
    """
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    predictions, references = predictions[:NUM_CHECKED], references[:NUM_CHECKED]
    written = [normalise(text, profile, predicted=True) for text in predictions]
    truth = [normalise(text, profile, predicted=False) for text in references]
    return {
        "bleu_4": bleu_4(predictions=predictions, references=references, profile=profile),
        "sacrebleu": metric.corpus_score(written, [truth]).score / 100,
        "scans": len(written),
        "signature": str(metric.get_signature()),
    }
