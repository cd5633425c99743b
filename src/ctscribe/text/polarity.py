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

_START = r"\A\W*(?:(?:findings?|impressions?|conclusions?|results?)\s*:\W*)*"
_MEASURE = r"(?:size|number|dimension|diameter|amount|volume|extent|count)"
_DEGREE = r"(?:minimal|mild|slight|moderate|massive|small|millimetric|minor)"

# Words that look like events and are none; they are blanked before events are read.
_PSEUDO = re.compile(
    rf"""
      \b(?:(?:which|that|and|but)\s+)?(?:{_BE}\s+)?(?:also\s+|not\s+|no\s+)?{_SEEN}\w*\s+
        (?:in|on|at)\s+(?:(?:the|his|her|patient['’]s|patient|comparison|with|its)\s+)*{_EARLIER}\b
    | \bnot\s+previously\s+\w+
    | \bnot?\s+(?:(?:significant|obvious|marked|clear|statistical)(?:ly)?\s+|any\s+|been\s+)*
        (?:chang|differ|progress|regress|interval|reach|exceed|exclud|caus|creat|growth
        |stable|optimal|rul|evaluat|pathological\s+in\b)\w*
    | \bnot?\s+(?:\w+\s+)?(?:in|de)creas\w*
        (?=\s+(?:in|of)\s+(?:(?!heart|cardi)\w+\s+){{0,3}}?{_MEASURE})
    | \b(?:has|have|had|did)\s+not\s+(?:in|de)creas\w*
    | \b{_BE_NOT}\s+(?:yet\s+|be\s+|been\s+|clearly\s+|fully\s+|made\s+)*
        (?:reach|show\s+(?:a\s+|any\s+)?(?:significant|growth|change)|differ|chang|exceed|caus
        |exclud|enter|creat|rul|evaluat|separat|regress|progress|characteri|measur|quantif|classif
        |pathological\s+in\b)\w*
    | \b{_BE_NOT}\s+(?:\w+\s+)?(?:specific|typical|characteristic|clear|certain|known|significant
        |suitable|necessary|related|due\b)\w*
    | \bnot\s+(?:only\b|possible\b|(?:in|of|at|with)\s+(?:the\s+)?patholog\w*)
    | \b(?:border|bound|contour|margin|outline)\w*[^,;.]{{0,30}}?\b{_BE_NOT}(?:\s+\w+){{1,3}}
    | \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+\w+ed\s+from\s+(?:each|one\s+another)
    | \bwithout\s+(?:contrast|iv\b|intravenous
        |(?:(?:any|significant|obvious|interval)\s+)*(?:chang|differ|progress)\w*
        |(?:\w+\s+)?patholog\w*\s+(?:featur|appear|siz|dimens|criteri)\w*)
    """,
    re.VERBOSE,
)
_EVENT = re.compile(
    rf"""
      (?P<both>\s-\s*no\b)
    | (?P<back>
        \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+{_SEEN}\w*
      | \bnot\s+(?:clearly\s+|significantly\s+|been\s+)?{_SEEN}\w*(?!\s*:)\b
      | \b(?:isn|aren|wasn|weren)['’]t\b
      | \b{_BE}\s+(?:absent|not\b|excluded|negative(?!\s+for)|unlikely|no\s+longer)
      | \b(?:{_BE}\s+)?(?:been\s+)?(?:excluded|ruled\s+out)\b|\bor\s+absent
      | :\s*(?:none|absent|negative|no)(?=\s*(?:[.,]|\Z))|\(\s*[-–]\s*\)
      | \bdisappeared\b|\b{_BE}\s+(?:(?:been|completely|fully|totally|entirely)\s+)*
          (?:resolved|cleared|removed|regressed|lost(?!\s+(?:its|their)\b))
      | \bshow(?:s|ed)?\s+(?:complete|full|total)\s+(?:regress|resol)\w*
      )
    | (?P<forward>
        \bno\b(?!\.)|\bwithout\b|{_START}resolved\b|\bnot\s+{_SEEN}\w*\s*:
      | \b(?:absence|lack|resolution|disappearance)\s+of\b(?!\s+(?:iv\s+)?contrast)
      | \bfree\s+(?:of|from)\b|\bnot\b|\bneither\b|\bnor\b|\bnegative\s+for\b|\bnone\b
      )
    | (?P<inside>\b(?:rather\s+than|instead\s+of)\b[^,.;]*)
    | (?P<affirm>
        \b{_BE}\s+(?:\w+\s+){{0,2}}?{_SEEN}\w*
      | \b(?:attract\w*|draw\w*)\s+attention
      | \bthere\s+{_BE}\b|\(\s*\+\s*\)
      | \b{_BE}\s+(?:normal|natural|open|preserved|increased|enlarged|wide)\b
      | \bnormal\b(?=\s*[,:]|\s+and\b)
      )
    | (?P<turn>;|\b(?:but|however|(?:al)?though|while|whereas)\b)
    | (?P<break>
        :|\bexcept\b|\b(?:other\s+than|apart\s+from|accompanied\s+by|secondary\s+to|in\s+addition)\b
      | \bbesides\b
      | ,\s+and\s+(?=there|an?\b|{_DEGREE}\b|it\b)
      | ,\s+(?=there\s|{_DEGREE}\s)
      )
    """,
    re.VERBOSE,
)
_DENIES_AFTER = frozenset({"forward", "both"})
_DENIES_BEFORE = frozenset({"back", "both"})
_DENIES = _DENIES_AFTER | _DENIES_BEFORE | {"inside"}
_VERBS = frozenset({"affirm", "back"})
_JOINT = re.compile(r",\s+(?!which|whose|that|where|in\s+which|the\s+larg|measur|with\b)|\band\s")
_DOUBT = re.compile(
    r"[^?.,;()]{0,25}\(?\s*\?"
    r"|[^.;]{0,70}\b(?:cannot|can\s+not|could\s+not)\s+be\s+(?:excluded|ruled|evaluated)"
)
# What a concession denies it denies up to the comma that ends it.
_CONCESSION = re.compile(
    rf"{_START}(?:even\s+)?(?:although|though|while|whereas|despite)\b[^,]*(?=,)"
)
_ONLY_EARLIER = re.compile(
    rf"{_START}(?:in|on)\s+the\s+(?:patient['’]s\s+)?{_EARLIER}\s+(?:\w+\s+)?(?:exam|ct|pet|tomo)"
    r"(?!.*\b(?:current|present\s+exam|this\s+exam|now|today|still|also|stable|unchanged|measured"
    r"|(?:in|de)creas\w*|reduced|regress\w*|progress\w*|persist\w*)\b)"
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

    def clause(self, start: int, end: int) -> tuple[int, int]:
        """Bounds of what the sentence may have said the words from ``start`` to ``end`` about.

        A thing named earlier remains the topic across commas; one that has a verb of its own
        after the words does not bear on them.
        """
        turns = [i for i, kind in enumerate(self.kinds) if kind == "turn"]
        low = max((self.ends[i] for i in turns if self.ends[i] <= start), default=0)
        high = min((self.starts[i] for i in turns if self.starts[i] >= end), default=None)
        high = len(self.sentence) if high is None else high
        verbs = [s for s, k in zip(self.starts, self.kinds, strict=True) if k in _VERBS]
        for comma in _JOINT.finditer(self.sentence, end, high):
            place = comma.start()
            if any(low <= v < place for v in verbs) and any(place <= v < high for v in verbs):
                return low, place
        return low, high


def read_polarity(sentence: str) -> Polarity:
    """Finds the events of a lower-case sentence."""
    masked = _PSEUDO.sub(lambda match: "_" * len(match[0]), sentence)
    events = [(m.start(), m.end(), m.lastgroup or "") for m in _EVENT.finditer(masked)]
    if concession := _CONCESSION.match(masked):
        events.append((concession.end(), concession.end() + 1, "turn"))
        events.sort()
    return Polarity(
        sentence,
        tuple(start for start, _, _ in events),
        tuple(end for _, end, _ in events),
        tuple(kind for _, _, kind in events),
        _ONLY_EARLIER.match(sentence) is not None,
    )
