"""Findings and Impression as one text and back, and text cut into sentences.

Radiology text does not end its sentences where prose does: CT-RATE separates impressions by
quotation marks and bullets, writes dates and decimals with points, and asks questions in
brackets.
"""

import re
from functools import lru_cache

_ANSWER = re.compile(
    r"\A\s*(?:findings\s*:)?(?P<findings>.*?)(?:(?:\A|\s)impressions?\s*:(?P<impression>.*))?\Z",
    re.DOTALL | re.IGNORECASE,
)

# Every branch starts with one plain character, which lets the engine skip from one to the next.
_BREAK = re.compile(
    r"""
      ["“”•▪●·;!\n\r]                    # separators that never belong to a word
    | \.(?=\s|$|[A-Z"“”•])               # a point before a space or a glued capital
    | \?(?=\s+["“”•]?\s*[A-Z])           # a question asked outside brackets
    | [-*–](?=\s+[A-Z])                  # a dash that opens a list item
    | [ ](?=\d{1,2}\)\s*[A-Z])          # the space before a number that opens one
    | [ ](?=(?:There|No|It|Other|Bilateral|Several|Multiple|Minimal|Mild|Mill?imetric|Diffuse|Focal
        |Patchy|Linear|Subsegm|Cal[cs]if?i|Athero|Hiat|Sliding|Emphys|Atelect|Consolid|Sequel|Fibro
        |Pleur|Pericard|Lymph|Mediast|Nodul|Ground|Mosaic|Bronchi|Peribronch|Interlob|Cardiomeg
        |Degener|Hepato|Cyst|Increase|Parenchymal|Thicken|Densit)[a-z]*[ ])  # a lost line break
    """,
    re.VERBOSE,
)
CONTINUES = frozenset(
    {"a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "no", "of", "on", "or", "the"}
    | {"to", "with", "without"}
)
"""Words that no sentence ends in."""
_WRAPPED_AT = 50
_SMALL = re.compile(r"\r?\n[ \t]*[a-z(]")
_LETTER = re.compile(r"[^\W_]")
_ABBREVIATIONS = frozenset(
    {"dr", "prof", "approx", "ca", "e.g", "i.e", "etc", "vs", "cf", "fig", "max", "min"}
    | {"resp", "art", "inf", "sup", "post", "ant"}
)


def join_report(findings: str, impression: str) -> str:
    """Writes the two sections as the one text a model learns to answer.

    `split_report` returns the sections, stripped, when neither holds an ``Impression:`` heading.
    """
    return f"Findings: {findings.strip()}\nImpression: {impression.strip()}"


def headed_report(findings: str, impression: str) -> str:
    """The two sections on one line, under the headings that CT-RATE's challenge has.

    Of one section, that section alone.
    """
    parts = findings.strip(), impression.strip()
    return f"Findings: {parts[0]} Impression: {parts[1]}" if all(parts) else "".join(parts)


def split_report(text: str) -> tuple[str, str]:
    """Splits an answer into (findings, impression), each stripped.

    A text without headings is all findings; headings are read in any case.
    """
    match = _ANSWER.match(text)
    if match is None:
        return text.strip(), ""
    return match["findings"].strip(), (match["impression"] or "").strip()


@lru_cache(maxsize=1 << 16)
def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of every sentence in ``text``, without surrounding white space.

    Points inside decimals, dates, initials and list numbers end nothing; the closing point
    belongs to its sentence. Labels, sizes and template statistics ask for the same reports in
    turn, so the last ones are kept.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        place, sign = match.start(), match[0]
        if sign == "." and _belongs_to_a_word(text, place):
            continue
        if sign in "-*–" and place and not text[place - 1].isspace():
            continue
        if sign == " " and not (text[place + 1].isdigit() or _ends_statement(text, place)):
            continue
        if sign in "\r\n" and _is_wrapped(text, place):
            continue
        _append_span(spans, text, start, match.end() if sign in ".?" else place)
        start = match.end()
    _append_span(spans, text, start, len(text))
    return tuple(spans)


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text`` in order, as `sentence_spans` bounds them."""
    return [text[start:end] for start, end in sentence_spans(text)]


def _is_wrapped(text: str, place: int) -> bool:
    """Whether a line break only keeps a line short: a long line goes on in small letters."""
    line = text[max(0, place - _WRAPPED_AT) : place].rstrip("\r")
    is_long = len(line) >= _WRAPPED_AT - 1 and "\n" not in line
    return is_long and line[-1] not in ".?!:;" and _SMALL.match(text, place) is not None


def _ends_statement(text: str, space: int) -> bool:
    word = text[max(0, space - 20) : space].rpartition(" ")[2]
    return word[-1:].isalpha() and word.islower() and word not in CONTINUES


def _belongs_to_a_word(text: str, point: int) -> bool:
    before = text[max(0, point - 7) : point]
    word = before[before.rfind(" ") + 1 :]
    if word.isdigit():
        # "segment 4. The liver" ends a sentence; "4. rib" and a list's "1. Nodule" do not.
        opens_list = text[: point - len(word)].rstrip()[-1:] in ("", ".")
        return opens_list or text[point + 1 : point + 3].strip()[:1].islower()
    if word[-1:].isdigit() and "." in word:
        # A date written with a space: "16.03. 2016".
        return text[point + 1 : point + 3].strip()[:1].isdigit()
    if word.lower() == "no":
        return text[point + 1 : point + 3].strip()[:1].isdigit()
    return len(word) == 1 or word.lower() in _ABBREVIATIONS


def _append_span(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    stripped = text[start:end].strip()
    if _LETTER.search(stripped):
        first = text.index(stripped, start)
        spans.append((first, first + len(stripped)))
