"""A way to name a finding: the words, and the surroundings that void them."""

import re
from dataclasses import dataclass
from typing import final

GAP = r"[^.;:]"
"""A character between words that belong together."""
LUNG = r"""(?:lungs?|pulmonary|lingul\w*|fissur\w*|subpleural|hemithora\w*|bronch\w*
    |ap(?:ex|ices|ical)|(?:upper|lower|middle)\ (?:lobes?|zones?))"""
OTHER_ORGAN = r"""(?:thyroids?|adrenals?|surrenals?|breast|mammary|spleen|splenic|liver|hepatic
    |kidneys?|renal|pancrea\w*|bladder|prostat\w*|schmorl\w*|isthmus|skin|subcutaneous|uter\w*|ovar\w*
    |gastric|stomach|colon\w*|periton\w*|omental|omentum|thymus|thymic|parotid|vertebra\w*
    |muscle\w*|glands?|crus|goit(?:er|re)|axilla|hypodense|abdominal|ventric\w*|atri\w*)"""

_JOINT = re.compile(r",|\band\b")


@final
@dataclass(frozen=True)
class Concept:
    """A way to name a finding."""

    finding: str
    """What an affirmed mention means."""
    literals: tuple[str, ...]
    """At least one of these strings is in every match; a quick way to say no."""
    pattern: re.Pattern[str]
    """The words themselves."""
    unless: re.Pattern[str] | None
    """Voids a match when it occurs in the same sentence."""
    elsewhere: re.Pattern[str] | None
    """Places outside the finding's own; one voids a match in its clause or after it was named."""
    home: re.Pattern[str]
    """The finding's own place; named between the same commas, it outweighs ``elsewhere``."""

    def is_void(self, sentence: str, span: tuple[int, int], clause: tuple[int, int]) -> bool:
        """Whether the lower-case ``sentence`` speaks of another thing at ``span``."""
        if self.unless and self.unless.search(sentence):
            return True
        if not self.elsewhere or not self.elsewhere.search(sentence, *clause):
            return False
        joints = [match.span() for match in _JOINT.finditer(sentence)]
        start = max((last for _, last in joints if last <= span[0]), default=0)
        end = min((first for first, _ in joints if first >= span[1]), default=len(sentence))
        part = (start, end)
        at_home = self.home.search(sentence, *part) and not self.elsewhere.search(sentence, *part)
        return not at_home


def concept(
    finding: str,
    literals: str,
    pattern: str,
    *,
    unless: str | None = None,
    elsewhere: str | None = None,
    home: str = rf"\b{LUNG}\b",
) -> Concept:
    """Compiles a concept from verbose patterns and literals parted by spaces."""
    return Concept(
        finding,
        tuple(literals.split()),
        re.compile(pattern, re.VERBOSE),
        re.compile(unless, re.VERBOSE) if unless else None,
        re.compile(elsewhere, re.VERBOSE) if elsewhere else None,
        re.compile(home, re.VERBOSE),
    )
