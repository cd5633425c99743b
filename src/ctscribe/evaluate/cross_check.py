"""BLEU-4 once more, by another hand: sacrebleu on the same strings (Post 2018)."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from ctscribe.evaluate.language import Profile, normalise


def sacrebleu_4(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile
) -> dict[str, float | str]:
    """Corpus BLEU-4 of the normalised texts, split at white space, in [0, 1], and its signature.

    It equals ``bleu_4`` to 1e-9 wherever one sequence of four words is right.
    """
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    written = [normalise(text, profile, predicted=True) for text in predictions]
    truth = [normalise(text, profile, predicted=False) for text in references]
    score = metric.corpus_score(written, [truth])
    return {"value": score.score / 100, "signature": f"sacrebleu|{metric.get_signature()}"}
