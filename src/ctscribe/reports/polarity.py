"""Whether a sentence affirms, denies or doubts what it names.

A sentence is read as a row of events: cues that deny what follows, verbs that deny or affirm
what came before, and breaks between clauses. A finding is absent when the nearest event to its
left denies forwards or the nearest to its right denies backwards; so "no mass is detected, and
sequelae are observed" and "a nodule is seen, effusion is not seen" come out right.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal, final

Status = Literal["present", "absent", "uncertain"]

_EARLIER = r"(?:previous|prior|earlier|old|older|last|former)"
_SEEN = (
    r"(?:observ|detect|seen|see|notic|noted|present|found|distinguish|identif|encounter|select"
    r"|exist|visuali[sz]|visible|monitor|record|report|remark|determin|discern|mention|appreciat"
    r"|accompan|available|describ|watch|evaluat|consider|follow)"
)
_BE = r"(?:is|are|was|were|has|have|had|been|be|do|does|did|can|could)"
_BE_NOT = rf"(?:{_BE}\s+not|(?:isn|aren|wasn|weren|don|doesn|didn|hasn|haven)['’]t|cannot)"

# Words that look like events and are none; they are blanked before events are read.
_PSEUDO = re.compile(
    rf"""
      \b(?:(?:which|that|and|but)\s+)?(?:{_BE}\s+)?(?:also\s+|not\s+|no\s+)?{_SEEN}\w*\s+
        (?:in|on|at)\s+(?:(?:the|his|her|patient['’]s|patient|comparison|with|its)\s+)*{_EARLIER}\b
    | \bnot?\s+(?:(?:significant|obvious|marked|clear|statistical)(?:ly)?\s+|any\s+|been\s+)*
        (?:chang|differ|progress|regress|interval|increas|decreas|reach|exceed|exclud|caus|creat
        |stable|optimal|rul|evaluat|pathological\s+in)\w*
    | \b{_BE_NOT}\s+(?:yet\s+|be\s+|clearly\s+)*
        (?:reach|show\s+(?:a\s+)?significant|differ|chang|exceed|caus|exclud|enter|creat|rul
        |evaluat|separat|pathological\s+in)\w*
    | \bwithout\s+(?:contrast|iv\b|intravenous)
    """,
    re.VERBOSE,
)
_EVENT = re.compile(
    rf"""
      (?P<both>\s-\s*no\b)
    | (?P<back>
        \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+{_SEEN}\w*
      | \bnot\s+(?:clearly\s+|significantly\s+|been\s+)?{_SEEN}\w*
      | \b{_BE}\s+(?:absent|not\b|excluded|negative|no\s+longer)|\bor\s+absent|:\s*(?:none|absent)
      | \b{_BE}\s+(?:(?:been|completely|fully|totally)\s+)*
          (?:disappeared|resolved|removed|regressed|lost)
      | \bshow(?:s|ed)?\s+(?:complete|full|total)\s+(?:regress|resol)\w*
      )
    | (?P<forward>
        \bno\b(?!\.)|\bwithout\b|\b(?:absence|resolution|disappearance)\s+of\b|\bfree\s+of\b
      | \bnot\b|\bneither\b|\bnor\b|\bnegative\s+for\b|\bnone\b|\brather\s+than\b|\binstead\s+of\b
      )
    | (?P<affirm>
        \b{_BE}\s+(?:\w+\s+){{0,2}}?{_SEEN}\w*
      | \b(?:attract\w*|draw\w*)\s+attention
      | \bthere\s+{_BE}\b
      | \b{_BE}\s+(?:normal|natural|open|preserved|increased|enlarged|wide)\b
      | \bnormal\b(?=\s*[,:]|\s+and\b)
      )
    | (?P<break>
        [;:]|\bbut\b|\bhowever\b|\b(?:al)?though\b|\bexcept\b|\bother\s+than\b|\bapart\s+from\b
      | \bwhile\b|\bwhereas\b|\baccompanied\s+by\b|\bsecondary\s+to\b|\bbesides\b|\bin\s+addition\b
      | ,\s+and\s+(?=there|an?\b|minimal|mild|millimetric|it\b)
      | ,\s+(?=there\s)
      )
    """,
    re.VERBOSE,
)
_DENIES_AFTER = frozenset({"forward", "both"})
_DENIES_BEFORE = frozenset({"back", "both"})
_DENIES = _DENIES_AFTER | _DENIES_BEFORE
_DOUBT = re.compile(
    r"[^?.,;()]{0,25}\?"
    r"|[^.;]{0,70}\b(?:cannot|can\s+not|could\s+not)\s+be\s+(?:excluded|ruled|evaluated)"
)
_ONLY_EARLIER = re.compile(
    rf"\A\W*(?:in|on)\s+the\s+(?:patient['’]s\s+)?{_EARLIER}\s+(?:\w+\s+)?(?:exam|ct|pet|tomo)"
    r"(?!.*\b(?:current|present\s+exam|this\s+exam|now|today|still|also)\b)"
)


@final
@dataclass(frozen=True)
class Polarity:
    """The events of one lower-case sentence."""

    sentence: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    kinds: tuple[str, ...]
    only_earlier: bool
    """The sentence speaks of an earlier examination and of nothing else."""

    def status(self, start: int, end: int) -> Status:
        """What the sentence says of the words from ``start`` to ``end``."""
        after = bisect_left(self.starts, end)
        before = bisect_right(self.ends, start) - 1
        within = self.kinds[before + 1 : after]
        if not _DENIES.isdisjoint(within):
            return "absent"
        if before >= 0 and self.kinds[before] in _DENIES_AFTER:
            return "absent"
        if after < len(self.kinds) and self.kinds[after] in _DENIES_BEFORE:
            return "absent"
        if self.only_earlier:
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
        _ONLY_EARLIER.match(sentence) is not None,
    )
