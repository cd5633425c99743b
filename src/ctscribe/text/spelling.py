"""Corrects misspelt names of findings.

Words are corrected only to a word of `_MEANT`: one that begins or ends alike and is one slip away,
or two in a long word. Slips are those of the Damerau-Levenshtein distance: a letter deleted,
inserted or substituted, or two neighbouring letters transposed.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

_MEANT = """
acinar adenopathies adenopathy adrenal atelectases atelectasis atelectatic atheroma atheromatous
atherosclerosis atherosclerotic bronchi bronchial bronchiectases bronchiectasis bronchiectatic
bulla bullae calcific calcification calcifications calcified cardiomegaly catheter catheters
cholelithiasis circumflex consolidation consolidations coronary effusion effusions embolism
embolus emphysema emphysematous endotracheal fibroatelectasis fibroatelectatic fibrotic fissure
fracture fractures gallbladder glass ground hepatosteatosis hernia hernias hiatal hiatus
interlobular interseptal intralobular lymph lymphadenopathies lymphadenopathy mosaic nodular
nodule nodules observed opacities opacity pacemaker parenchymal peribronchial peribronchovascular
pericardial pericardium plaque plaques pleura pleural pleuroparenchymal pneumothorax prosthesis
septal septum sequela sequelae sternotomy thickened thickening thickenings thickness thyroid
tracheostomy
"""
_OWN = """
around atheromas bella bully calcifies circumflexes clarification clarifications class consolation
consolidating consolidative empyema fissures fractured glassy gloss grass grounds hernial
interlobar interseptum intralobar lymphs modular module modules nymph observe observer observers
observes obsessed parenchyma pericardia pericardiac pericardially plague pleurae round septa
sequel sequelize sequence thickens tracheostoma tracheotomy
"""
"""Correct words that are one slip from a word of `_MEANT`, and are kept."""
_MEANT_WORDS, _OWN_WORDS = frozenset(_MEANT.split()), frozenset(_OWN.split())
_SHORTEST, _MEDIUM, _LONG = 4, 8, 10
_EDGE = 2
Near = dict[tuple[int, str, str], list[tuple[str, frozenset[str]]]]
"""(Length, first letters, last letters) of a word, one of the latter empty → candidates of `_MEANT`
with their letters."""


def _by_edge(words: Iterable[str]) -> Near:
    found: Near = defaultdict(list)
    for word in words:
        reach = 2 if len(word) >= _MEDIUM else 1
        for length in range(len(word) - reach, len(word) + reach + 1):
            found[length, word[:_EDGE], ""].append((word, frozenset(word)))
            found[length, "", word[-_EDGE:]].append((word, frozenset(word)))
    return dict(found)


_BY_EDGE = _by_edge(_MEANT.split())


@lru_cache(maxsize=1 << 15)
def meant_by(word: str) -> str:
    """The correction of the lower-case ``word``; most often the word itself."""
    if len(word) < _SHORTEST or word in _MEANT_WORDS or word in _OWN_WORDS:
        return word
    begins = _BY_EDGE.get((len(word), word[:_EDGE], ""), ())
    ends = _BY_EDGE.get((len(word), "", word[-_EDGE:]), ())
    best, allowed = word, 3
    for meant, letters in (*begins, *ends):
        reach = _reach(word, meant)
        # One slip adds or removes at most two letters of the set of letters used.
        if len(letters.symmetric_difference(word)) <= 2 * reach:
            slips = _slips(word, meant)
            if slips <= reach and slips < allowed:
                best, allowed = meant, slips
    return best


def _reach(word: str, meant: str) -> int:
    """The most slips allowed: two for long words, or words that begin and end alike."""
    begins_alike = word[:3] == meant[:3] and word[-1] == meant[-1]
    return 2 if len(meant) >= _LONG or (begins_alike and len(meant) >= _MEDIUM) else 1


def _slips(word: str, meant: str) -> int:
    """The Damerau-Levenshtein distance, in which no part is edited twice."""
    word, meant = _without_common_ends(word, meant)
    before: list[int] = []
    above = list(range(len(meant) + 1))
    for i, sign in enumerate(word, 1):
        row = [i]
        for j, other in enumerate(meant, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (sign != other))
            if i > 1 and j > 1 and (sign, word[i - 2]) == (meant[j - 2], other):
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def _without_common_ends(word: str, meant: str) -> tuple[str, str]:
    """Both words without their common first and last letters, which contain no slip."""
    while word and meant and word[0] == meant[0]:
        word, meant = word[1:], meant[1:]
    while word and meant and word[-1] == meant[-1]:
        word, meant = word[:-1], meant[:-1]
    return word, meant
