"""Whether a sentence affirms, denies or doubts what it names.

A sentence is read as a row of events: cues that deny what follows, verbs that deny or affirm
what came before, and breaks between clauses. A finding is absent when the nearest event to its
left denies forwards or the nearest to its right denies backwards; so "no mass is detected, and
sequelae are observed" and "a nodule is seen, effusion is not" come out right.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal, final

Status = Literal["present", "absent", "uncertain"]

# Words that look like denial and are none; they are blanked before events are read.
_PSEUDO = re.compile(
    r"""
      \b(?:which|that|and|but)?\s*(?:was|were|is|are|had)\s+(?:not|no)\b[^.,;]{0,40}
        \b(?:previous|prior|earlier|old|last|former)\b[^.,;]*
    | \bnot\s+(?:been\s+)?(?:observed|seen|present|detected|available|included)\s+(?:in|on|at)\s+
        (?:the\s+|his\s+|her\s+)?(?:previous|prior|earlier|old|last)\b
    | \bno(?:t)?\s+(?:significant(?:ly)?\s+|obvious\s+|marked\s+|clear(?:ly)?\s+|any\s+)*
        (?:change|changed|difference|differ|progress|regress|interval|increas|decreas|enlarged\s+since)\w*
    | \b(?:do(?:es)?|did|is|are|was|were|has|have|had)\s+not\s+(?:yet\s+)?
        (?:reach|show\s+(?:a\s+)?significant|differ|change|exceed|cause|exclude|enter|create)\w*
    | \bnot\s+(?:reach|exceed|exclud|caus|creat|chang)\w*
    | \bwithout\s+(?:contrast|iv|intravenous)\b
    | \b(?:non|un)-?(?=\w)
    | \bcan(?:not|\s+not)\s+(?:be\s+)?(?:exclud|rul|differentiat|distinguish|separat|evaluat)\w*
    | \bcould\s+not\s+(?:be\s+)?(?:exclud|rul|differentiat|distinguish|separat|evaluat)\w*
    | \bnot\s+(?:be\s+)?(?:optimal|exclud|rul|clearly\s+(?:differentiat|distinguish|evaluat)|evaluat)\w*
    | \bno\.\s*\d
    """,
    re.VERBOSE,
)

_SEEN = (
    r"(?:observ|detect|seen|see|notic|not(?:ed|iced)|present|found|distinguish|identif|encounter"
    r"|follow|select|exist|visualiz|visible|monitor|record|reported|remark|evaluat|consider|watch"
    r"|determin|discern|mention|appreciat|accompan|available)"
)

_EVENT = re.compile(
    rf"""
      (?P<back>
        \b(?:is|are|was|were|has|have|had|been|do|does|did|can|could)\s+(?:\w+\s+){{0,1}}?
          not(?:\s+\w+){{0,2}}?\s+{_SEEN}\w*
      | \b(?:isn't|wasn't|aren't|weren't)\b
      | \bnot\s+(?:clearly\s+|significantly\s+)?{_SEEN}\w*
      | \b(?:is|are|was|were)\s+(?:absent|not\b|excluded|negative|resolved|lost\b|no\s+longer)
      | \bhas\s+(?:disappeared|resolved)|\bhave\s+(?:disappeared|resolved)|\bdisappeared
      )
    | (?P<forward>
        \bno\b(?!\.)|\bwithout\b|\babsence\s+of\b|\bfree\s+of\b|\bnot\b|\bneither\b|\bnor\b
      | \bnegative\s+for\b|\bnone\b|\brather\s+than\b|\binstead\s+of\b
      )
    | (?P<affirm>
        \b(?:is|are|was|were|has\s+been|have\s+been|been)\s+(?:\w+\s+){{0,2}}?{_SEEN}\w*
      | \b(?:attract\w*|draw\w*)\s+attention
      | \bthere\s+(?:is|are|was|were)\b
      | \b(?:is|are|was|were)\s+(?:present|normal|natural|open|preserved|increased|enlarged|wide)\b
      | \bnormal\b(?=\s*[,:]|\s+and\b)
      )
    | (?P<break>
        ;|:|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept\b|\bother\s+than\b|\bapart\s+from\b
      | \bwhile\b|\bwhereas\b|\baccompanied\s+by\b|\bsecondary\s+to\b|\bbesides\b|\bin\s+addition\b
      | ,\s+and\s+(?=there|a\b|an\b|minimal|mild|millimetric|it\b)
      | ,\s+(?=there\s)
      )
    """,
    re.VERBOSE,
)
_DOUBT = re.compile(r"[^?.,;()]{0,25}\?")


@final
@dataclass(frozen=True)
class Polarity:
    """The events of one lower-case sentence."""

    sentence: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    kinds: tuple[str, ...]

    def status(self, start: int, end: int) -> Status:
        """What the sentence says of the words from ``start`` to ``end``."""
        right = bisect_left(self.starts, end)
        left = bisect_right(self.ends, start) - 1
        if left >= 0 and self.kinds[left] == "forward":
            return "absent"
        if right < len(self.kinds) and self.kinds[right] == "back":
            return "absent"
        return "uncertain" if _DOUBT.match(self.sentence, end) else "present"


def read_polarity(sentence: str) -> Polarity:
    """Finds the events of a lower-case sentence."""
    masked = _PSEUDO.sub(lambda match: "_" * len(match[0]), sentence)
    events = [(m.start(), m.end(), m.lastgroup or "") for m in _EVENT.finditer(masked)]
    return Polarity(
        sentence,
        tuple(start for start, _, _ in events),
        tuple(end for _, end, _ in events),
        tuple(kind for _, _, kind in events),
    )
