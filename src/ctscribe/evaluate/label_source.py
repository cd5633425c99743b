"""Who reads the 18 findings out of a text: the rules, or whatever takes their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Bool

from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import label_report
from ctscribe.types import Labels


@final
@dataclass(frozen=True)
class LabelSource:
    """A reader of findings, and the name by which signatures call it."""

    name: str
    """E.g. ``rules`` or ``radbert``."""
    read: Callable[[Sequence[str]], Bool[np.ndarray, "texts 18"]]
    """Texts → whether each states each of `FINDINGS`."""

    def labels(self, texts: Sequence[str]) -> list[Labels]:
        """Reads every distinct text once; an empty one states nothing and is not asked about."""
        distinct = [text for text in dict.fromkeys(texts) if text]
        stated = self.read(distinct)
        if stated.shape != (len(distinct), len(FINDINGS)):
            raise ValueError(f"{self.name} must give {len(FINDINGS)} findings for each text")
        known = {
            text: tuple(int(label) for label in row)
            for text, row in zip(distinct, stated, strict=True)
        }
        return [known.get(text, NOTHING) for text in texts]


NOTHING: Labels = (0,) * len(FINDINGS)
"""None of the findings."""


def _read_by_rules(texts: Sequence[str]) -> Bool[np.ndarray, "texts 18"]:
    labels = [_label(text) for text in texts]
    return np.array(labels, dtype=bool).reshape(-1, len(FINDINGS))


@lru_cache(maxsize=1 << 14)
def _label(text: str) -> Labels:
    return label_report(text)


RULES = LabelSource("rules", _read_by_rules)
"""The rule labeler."""
