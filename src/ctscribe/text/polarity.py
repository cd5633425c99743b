"""Whether a sentence affirms, denies or doubts what it names.

A sentence is read as a sequence of events: cues that deny what follows, verbs that deny or affirm
what comes before, and breaks between clauses. A finding is absent if the nearest event on its left
denies forwards, or the nearest on its right denies backwards. So "no mass is detected, and sequelae
are observed" and "a nodule is seen, effusion is not seen" are read correctly.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, final

Status = Literal["present", "absent", "uncertain"]
Event = tuple[int, int, str]
"""Start, end and kind."""

_EARLIER = r"(?:previous|prior|earlier|old|older|last|former)"
_SEEN = (
    r"(?:observ|detect|seen|see|notic|noted|present|found|distinguish|identif|encounter|select"
    r"|exist|visuali[sz]|visible|monitor|record|report|remark|determin|discern|mention|appreciat"
    r"|accompan|available|describ|watch|evaluat|consider|follow)"
)
_BE = r"(?:is|are|was|were|has|have|had|been|be|do|does|did|can|could)"
_IS = r"(?:is|are|was|were|been|be)"
_BE_NOT = rf"(?:{_BE}\s+not|(?:isn|aren|wasn|weren|don|doesn|didn|hasn|haven)['’]t|cannot)"

_START = r"\A\W*(?:(?:findings?|impressions?|conclusions?|results?)\s*:\W*)*"
_MARKED = r"(?:any|clear|definite|evident|further|interval|marked|obvious|significant)"
_MEASURE = r"(?:size|number|dimension|diameter|amount|volume|extent|count)"
_QUALITY = (
    r"(?:calcified|loculated|encapsulated|infected|massive|large|big|small|thick|tense|new|solid"
    r"|cavit\w*|spiculated|enhanc\w*|homogen\w*|symmetric\w*|bilateral|extensive|marked|severe"
    r"|malignant|suspicious|patholog\w*|(?:fdg[\s-]*)?avid|aggressive|haemorrhagic|hemorrhagic|obstruct\w*|complicated|lobulated|(?:limited|confined|restricted)(?=\s+to\b))"
)
"""Properties whose denial does not deny the thing: "the nodule is not calcified"."""
_DEGREE = r"(?:minimal|mild|slight|moderate|massive|small|millimetric|minor)"
_LITTLE = rf"(?:{_DEGREE}|trace|tiny|little|few)"
_RESOLUTION = r"(?:resolution|clearance|clearing|disappearance)"

_PLACE = (
    r"(?:lungs?|lobes?|segments?|lingula|bases?|apices|apex|hemithorax|mediastinum|aorta|arter(?:y|ies)"
    r"|vessels?|heart|pericardium)"
)
_BEARS = (
    r"(?:shows?|contains?|exhibits?|demonstrates?|reveals?|displays?|harbou?rs?|includes?"
    r"|ha(?:s|ve)(?!\s+(?:not?|been)\b))"
)
"""Verbs that affirm their object."""

# Both patterns first require a word boundary, which makes them three times as fast.
# Words that look like events but are not; they are masked before events are read.
_PSEUDO = re.compile(
    rf"""
    \b(?=[a-z])(?:
      \b(?:(?:which|that|and|but)\s+)?(?:{_BE}\s+)?(?:also\s+|not\s+|no\s+)?{_SEEN}\w*\s+
        (?:in|on|at)\s+(?:(?:the|his|her|patient['’]s|patient|comparison|with|its)\s+)*{_EARLIER}\b
    | \bnot\s+previously\s+\w+
    | \bnot?\s+(?:(?:significant|obvious|marked|clear|statistical)(?:ly)?\s+|any\s+|been\s+)*
        (?:chang|differ|progress|regress|interval|reach|exceed|exclud|caus|creat|growth
        |stable|optimal|rul|evaluat|pathological\s+in\b)\w*
    | \b(?:no|without|beyond|little|hardly\s+any)\s+(?:an?\s+|any\s+|reasonable\s+|shadow\s+of\s+)*
        (?:doubts?|questions?|uncertainty|dispute|denying|mistaking)\b
    | \b(?:no|absence\s+of|lack\s+of)\s+(?:{_MARKED}\s+)*(?:(?:sign|evidence|finding)s?\s+of\s+)?
        (?:chang|decreas|reduc|resol|improve|regress|shrink|clearance|disappear|worsen)\w*
        (?=\s+(?:in|of)\b)(?:\s+of\b)?
    | \bno\s+(?:{_MARKED}\s+)*(?:increase|enlargement|growth|progression)\s+
        (?:in|of)\s+(?:the\s+)?(?:known|existing|old|described|previous\w*|nodul|effusion|mass|lesion)
    | \b(?:but|and|however|(?:al)?though),?\s+(?:it|they|this|these)
        (?=\s+(?:is|are|was|were|can|could|has|have)\s*(?:not|no\s+longer)\b)
    | \bnot\s+(?:all|every|always|just|merely|surprisingly|unexpectedly)\b
    | \b(?:{_BE_NOT}|not)\s+(?:been\s+)?{_SEEN}\w*\s+(?:before|previously|earlier|until)\b
    | \b{_BE_NOT}\s+(?:\w+\s+)?(?:require|need|warrant|necessitat|merit)\w*
    | \bno\s+(?:(?:further|routine|additional|specific|dedicated|imaging|ct)\s+)*
        (?:follow[\s-]?up|surveillance|intervention|treatment|work-?up)\b
    | \bnot?\s+(?:more|greater|larger)\s+than\s+(?:an?\s+)?(?:{_LITTLE}\b|\d)
    | \b(?:partial|incomplete|subtotal)\s+{_RESOLUTION}\s+of\b
    | \b(?:document|ensure|confirm|assess|evaluat|await|pending|until)\w*\s+(?:for\s+|of\s+)?
        (?:the\s+)?(?:complete\s+)?{_RESOLUTION}\s+of\b
    | \bnot?\s+(?:\w+\s+)?(?:in|de)creas\w*
        (?=\s+(?:in|of)\s+(?:(?!heart|cardi)\w+\s+){{0,3}}?{_MEASURE})
    | \b(?:has|have|had|did)\s+not\s+(?:in|de)creas\w*
    | \b{_BE_NOT}\s+(?:yet\s+|be\s+|been\s+|clearly\s+|fully\s+|made\s+)*
        (?:reach|show\s+(?:a\s+|any\s+)?(?:significant|growth|change)|differ|chang|exceed|caus
        |exclud|enter|creat|rul|evaluat|separat|regress|progress|characteri|measur|quantif|classif
        |pathological\s+in\b)\w*
    | \b{_BE_NOT}\s+(?:yet\s+|been\s+|completely\s+|fully\s+|entirely\s+)*
        (?:resol|clear(?:ed|ing)|disappear|remov|improv|heal|shr[aiu]nk|vanish|deni)\w*
    | \b{_BE_NOT}\s+(?:(?:consider|appear|seem|felt|thought|deem|believ)\w*\s+(?:to\s+be\s+)?)?
        (?:\w+ly\s+)?{_QUALITY}\b
    | \b{_BE_NOT}\s+(?:\w+\s+)?(?:specific|typical|characteristic|clear|certain|known|significant
        |suitable|necessary|related|due\b)\w*
    | \bnot\s+(?:only\b|possible\b|(?:in|of|at|with)\s+(?:the\s+)?patholog\w*)
    | \b(?:border|bound|contour|margin|outline)\w*[^,;.]{{0,30}}?\b{_BE_NOT}(?:\s+\w+){{1,3}}
    | \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+\w+ed\s+from\s+(?:each|one\s+another)
    | \bwithout\s+(?:contrast|iv\b|intravenous
        |(?:(?:any|significant|obvious|interval)\s+)*(?:chang|differ|progress)\w*
        |(?:\w+\s+)?patholog\w*\s+(?:featur|appear|siz|dimens|criteri)\w*)
    )
    """,
    re.VERBOSE,
)
_EVENT = re.compile(
    rf"""
    (?:\A|\b(?=\w)|(?=[,;:(]|\s[-–]))(?:
      (?P<both>\s[-–]\s*no\b)
    | (?P<back>
        \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+{_SEEN}\w*
      | \b{_BE}\s+{_SEEN}\w*\s+(?:in|on)\s+neither\b
      | \b{_BE_NOT}(?:\s+\w+){{0,2}}?\s+(?:develop|occur|appear|emerg|aris|persist|remain|recur)\w*
      | \bnot\s+(?:clearly\s+|significantly\s+|been\s+)?{_SEEN}\w*(?!\s*:)\b
      | \b(?:isn|aren|wasn|weren)['’]t\b|\b(?:can|could)\s*not\s+be\b|\bha(?:s|ve|d)\s+not\s+been\b
      | \b{_IS}\s+(?:absent|not\b|excluded|negative(?!\s+for)|unlikely|no\s+longer|never\b)
      | \b(?:{_BE}\s+)?(?:been\s+)?(?:excluded|ruled\s+out)\b|\bor\s+absent
      | :\s*(?:none|absent|negative|no)(?=\s*(?:[.,]|\Z))|\(\s*(?:[-–]|no|none|absent)\s*\)
      | \s[-–]\s*(?:none|absent|negative)\b
      | (?<!ly\s)(?<!almost\s)(?<!not\s)\b(?:resolved|removed)(?=\s*(?:[.,;]|\Z))
      | \bdisappeared\b|\b{_BE}\s+(?:(?:been|completely|fully|totally|entirely)\s+)*
          (?:resolved|cleared|removed|regressed|lost(?!\s+(?:its|their)\b))
      | \bshow(?:s|ed)?\s+(?:complete|full|total)\s+(?:regress|resol)\w*
      )
    | (?P<phrase>
        \b(?:no\s+longer|not)\s+(?:accompanied|associated|complicated)\s+(?:by|with)\b
      | \bwith\s+no\b|\bwithout\b|\bfree\s+(?:of|from)\b
      | \b(?:absence|lack|removal|resolution|disappearance|complete\s+{_RESOLUTION})\s+of\b
          (?!\s+(?:iv\s+)?contrast)
      | \b(?:(?:evaluate|assess|screen(?:ing)?|look|limited\s+evaluation)\s+for|rule\s+out|r/o)\b
          (?!\s+(?:\w+\s+){{0,2}}?(?:stabil|chang|grow|progress|malignan|metasta|cause|etiolog)\w*)
      )
    | (?P<doubt>
        \b{_LITTLE}\s*,?\s+if\s+any\b|\bdoubts?\s+(?:about|regarding|whether)\b
      | \b(?:questionable|doubtful|equivocal)\b
      )
    | (?P<past>
        \bhistory\s+of\b(?!.*\b(?:(?:in|de)creas|persist|unchanged|stable|still|remain)\w*)
      | \b(?:history|anamnesis|indication|complaint|clinical\s+(?:information|question)
          |reason\s+for\s+(?:the\s+|this\s+)?(?:exam\w*|study|scan|ct|test))s?\s*:
      | \btreated\s+for\b
      )
    | (?P<forward>
        \bthere\s+(?:isn|aren|wasn|weren)['’]t\b
      | \bno\b(?!\.)|\bnowhere\b|\bfail(?:s|ed|ing)?\s+to\b|{_START}resolved\b
      | \bnot\s+{_SEEN}\w*\s*:|\bnot\b|\bneither\b|\bnor\b|\bnegative\s+for\b|\bnone\b
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
        :|\bexcept(?:ing|ion\s+of)?\b|\bbarring\b
      | \b(?:other\s+than|apart\s+from|aside\s+from|save\s+for
        |accompanied\s+by|secondary\s+to|in\s+addition)\b
      | \bwith\s+(?:(?:an?|some|only)\s+)?(?:{_DEGREE}\s+)?(?:residual|remaining|persist\w+|new)\b
      | \bbesides\b
      | ,\s+and\s+(?=there|an?\b|{_DEGREE}\b|it\b)
      | ,\s+(?=there\s|{_DEGREE}\s|(?:an?|only|just|instead|several|(?:with|where)(?!\s+or\b))\s)
      | (?:,|\b{_PLACE})\s+(?:which|that|who(?:se\s+(?:\w+\s+){{1,3}}?)?)\s*
          (?:(?:all|both|also|each)\s+)?{_BEARS}\b
      )
    )
    """,
    re.VERBOSE,
)
_DENIES_AFTER = frozenset({"forward", "phrase", "both"})
_DENIES_BEFORE = frozenset({"back", "both"})
_DENIES = _DENIES_AFTER | _DENIES_BEFORE | {"inside"}
_VERBS = frozenset({"affirm", "back"})
_BREAKS = frozenset({"break", "turn"})
_OPENS = frozenset({"forward", "phrase", "past"})
_COMMA = re.compile(r",(?=\s)")
_FINITE = re.compile(
    rf"\b(?:is|are|was|were|has|have|{_BEARS}|reach(?:es)?|measures?|persists?|remains?|predominates?"
    r"|extends?)\b"
)
"""A finite verb, by which a part of a sentence is a clause of its own."""
_SAID_OF_ITSELF = re.compile(
    rf"\b(?:{_IS}\s+(?:\w+ly\s+)?(?:normal|natural|open|patent|enlarged|increased|dilated|widened"
    rf"|thickened|wide|large|calcified|tortuous)|ha(?:s|ve)\s+(?:in|de)creased|{_BEARS}"
    r"|reach(?:es)?|measures?|persists?|remains?|predominates?|extends?)\b"
)
"""Verbs that end the scope of "no": "no effusion, the heart is enlarged"."""
_IN_FAVOUR = re.compile(
    r"\s+(?:\w+\s+)?(?:in\s+(?:favou?r|terms)\s+of|suggest\w*|indicat\w*|to\s+suggest"
    r"|(?:compatible|consistent)\s+with)\b"
)
"""Extends a denial to what follows: "no defect was seen in favour of embolism"."""
_LISTED = re.compile(r"\bor\b|,\s+(?:which|whose|that|who|where|with)\b")
_JOINT = re.compile(r",\s+(?!which|whose|that|where|in\s+which|the\s+larg|measur|with\b)|\band\s")
_DOUBT = re.compile(
    r"[^?.,;()]{0,25}\(?\s*\?"
    r"|[^.;]{0,70}\b(?:cannot|can\s+not|could\s+not)\s+be\s+(?:excluded|ruled|evaluated)"
    r"|[^.;]{0,40}\b(?:difficult|hard|impossible)\s+to\s+(?:exclude|rule\s+out)\b"
    r"|\s*,?\s+if\s+(?:any|present)\b"
    r"|[^.,;]{0,40}\b(?:is|are|was|were)\s+not\s+(?:\w+ly\s+)?(?:excluded|ruled\s+out)"
    r"|[^.,;]{0,40}\b(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:doubtful|questionable|equivocal|uncertain)\b"
)
_NOT_EXCLUDED = re.compile(
    r"\b(?:cannot|can['’]t|(?:can|could)\s+not|(?:unable|impossible|difficult|not\s+possible)\s+to)\s+"
    r"(?:\w+ly\s+)?(?:exclude|rule\s+out)\b"
)
_HEADING = re.compile(rf"(?:{_START})(?P<topic>[^:.;\d]{{1,60}}):(?=\s|\*)")
_NOTHING = re.compile(
    r":[\s*_]*(?:(?:not|none|nil|negative|absent|(?:within\s+)?normal|unremarkable|clear|without|free)\b"
    r"|no\b(?!\s+(?:\w+\s+)?(?:calcif|cavit|enhanc|fat|growth|locul|associat|adjacent|surround)\w*))"
)
"""After the topic of a heading: that there is none of it, and not what it is like."""
# A denial within a concession ends at the concession's comma.
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
    """Whether the sentence is only about an earlier examination."""

    def status(self, start: int, end: int, *, lasting: bool = False) -> Status:
        """The status of the words from ``start`` to ``end``.

        ``lasting`` findings are present even where only the history mentions them.
        """
        after = bisect_left(self.starts, end)
        before = bisect_right(self.ends, start) - 1
        # If the words contain a break, it counts as the nearest event on their left.
        breaks = (i for i in range(before + 1, after) if self.kinds[i] in _BREAKS)
        before = max(breaks, default=before)
        within = self.kinds[before + 1 : after]
        if not _DENIES.isdisjoint(within):
            return "absent"
        if before >= 0 and self.kinds[before] in _DENIES_AFTER:
            return "absent"
        if after < len(self.kinds) and self.kinds[after] in _DENIES_BEFORE:
            return "absent"
        if before >= 0 and self.kinds[before] == "past" and not lasting:
            return "absent"
        if self.only_earlier:
            return "absent"
        doubted = before >= 0 and self.kinds[before] == "doubt"
        return "uncertain" if doubted or _DOUBT.match(self.sentence, end) else "present"

    def clause(self, start: int, end: int) -> tuple[int, int]:
        """Bounds of the clause in which the words from ``start`` to ``end`` stand.

        It reaches back across commas, since a thing that was named earlier remains the topic. It
        ends before a part of the sentence with a verb of its own.
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
    doubts = [(match.start(), match.end(), "doubt") for match in _NOT_EXCLUDED.finditer(sentence)]
    masked = _blanked(_PSEUDO, _blanked(_NOT_EXCLUDED, sentence))
    events = [(m.start(), m.end(), m.lastgroup or "") for m in _EVENT.finditer(masked)]
    events = [
        (start, end, kind)
        for (_, cue, opened), (start, end, kind) in pairwise([(0, 0, ""), *events])
        if not (
            (opened, kind) == ("forward", "affirm")
            and _IN_FAVOUR.match(masked, end)
            and "," not in masked[cue:start]
        )
    ]
    events = sorted(events + doubts)
    ends = [(place, "break") for place in _ends_of_scope(masked, events)]
    if concession := _CONCESSION.match(masked):
        ends.append((concession.end(), "turn"))
    colon = heading_end(masked)
    if colon is not None and _NOTHING.match(masked, colon):
        ends.append((colon, "back"))
    events = sorted(events + [(place, place + 1, kind) for place, kind in ends])
    return Polarity(
        sentence,
        tuple(start for start, _, _ in events),
        tuple(end for _, end, _ in events),
        tuple(kind for _, _, kind in events),
        _ONLY_EARLIER.match(sentence) is not None,
    )


def _blanked(pattern: re.Pattern[str], sentence: str) -> str:
    """The sentence with what matches blanked, so that no event is read in it."""
    return pattern.sub(lambda match: "_" * len(match[0]), sentence)


def heading_end(sentence: str) -> int | None:
    """The colon after the topic that a lower-case sentence begins with, as in "pleura: clear"."""
    heading = _HEADING.match(sentence)
    if heading is None or _EVENT.search(heading["topic"]):
        return None
    return heading.end() - 1


def _ends_of_scope(sentence: str, events: Sequence[Event]) -> Iterator[int]:
    """Places where a new clause ends the scope of a denial or of the history before it."""
    for number, (_, start, kind) in enumerate(events):
        if kind not in _OPENS:
            continue
        later = events[number + 1 :]
        limit = next((first for first, _, k in later if k not in _VERBS), len(sentence))
        verb = later[0][0] if later and later[0][2] == "affirm" else None
        place = _own_clause(sentence[:limit], start, kind, verb)
        if place is not None:
            yield place


def _own_clause(sentence: str, start: int, kind: str, verb: int | None) -> int | None:
    """Place of the comma or "and" that opens the clause; ``verb`` is the next affirmation's."""
    commas = [match.start() for match in _COMMA.finditer(sentence, start)]
    if kind == "past" and sentence[start - 1] == ":":
        return None  # a heading, under which all is told
    if kind == "past":
        both = sentence.find(" and ", start, verb) if verb is not None else -1
        return min([*commas[:1], *([both] if both >= 0 else [])], default=None)
    before_verb = [comma for comma in commas if verb is not None and comma < verb]
    if kind == "forward" and len(before_verb) == 1 and sentence.startswith(" and ", commas[0] + 1):
        return commas[0]
    own = _FINITE if kind == "phrase" else _SAID_OF_ITSELF
    for comma, end in pairwise([*commas, len(sentence)]):
        said = own.search(sentence, comma, end)
        if said and not _LISTED.search(sentence, comma, said.start()):
            return comma
    return None
