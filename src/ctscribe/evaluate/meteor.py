"""METEOR 1.5, for who has it: a Java program that comes with pycocoevalcap.

It is no dependency, because the package may not be passed on; whoever wants the number installs
it. Its corpus score is no function of sums that we keep, so it has no interval.
"""

import shutil
from collections.abc import Sequence

from ctscribe.errors import CtscribeError
from ctscribe.evaluate.language import Profile, normalise


def meteor(
    *, predictions: Sequence[str], references: Sequence[str], profile: Profile
) -> dict[str, float | str | None]:
    """Corpus METEOR of the normalised texts: ``value``, no ``low`` and ``high``, ``signature``.

    Raises:
        CtscribeError: ``E_METEOR`` without Java or without pycocoevalcap.
    """
    try:
        from pycocoevalcap.meteor.meteor import Meteor  # type: ignore[import-not-found]
    except ImportError as error:
        told = "pycocoevalcap 1.2, which does not import"
        raise _lacking(told) from error
    if shutil.which("java") is None:
        raise _lacking("Java, which is not on the path")
    # One text is one line of the program's input.
    written = {i: [_line(t, profile, predicted=True)] for i, t in enumerate(predictions)}
    truth = {i: [_line(t, profile, predicted=False)] for i, t in enumerate(references)}
    value, _ = Meteor().compute_score(truth, written)
    signature = f"meteor|profile:{profile}|jar:1.5|lang:en|level:corpus|scans:{len(truth)}"
    return {"value": float(value), "low": None, "high": None, "signature": signature}


def _line(text: str, profile: Profile, *, predicted: bool) -> str:
    return " ".join(normalise(text, profile, predicted=predicted).split())


def _lacking(what: str) -> CtscribeError:
    return CtscribeError("E_METEOR", f"METEOR needs {what}")
