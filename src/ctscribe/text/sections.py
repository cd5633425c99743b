"""Joins Findings and Impression into one text, splits them again, and splits text into sentences.

Sentences of radiology reports differ from prose: CT-RATE separates impressions by quotation marks
and bullets, writes dates and decimals with points, and puts questions into brackets.
"""

import re
from functools import lru_cache

_MARKED = r"[*_]*{}[*_]*"
"""A heading's word within Markdown's signs of emphasis."""
_LEVEL = r"[#]*[ ]?"
"""Markdown's sign of a heading, which begins a line; elsewhere it is the text's own."""
_COLON = r"\s*[:：][*_]*"
_ALONE = r"[ \t\r]*(?=\n)"
_FINDINGS, _IMPRESSION = _MARKED.format("findings"), _MARKED.format("impressions?")
_ANSWER = re.compile(
    rf"""\A\s*(?:{_LEVEL}{_FINDINGS}(?:{_COLON}|{_ALONE}))?(?P<findings>.*?)
    (?:(?:(?:\A|\s|(?<=\.)){_IMPRESSION}{_COLON}
      |(?:\A|\n)[ \t]*{_LEVEL}{_IMPRESSION}(?:{_COLON}|{_ALONE}))
    (?P<impression>.*))?\Z""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)

# Every branch starts with a literal character, which lets the regex engine skip ahead.
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
"""Words with which no sentence ends."""
_WRAPPED_AT = 50
"""Lines of at least this length may have been wrapped."""
_LOWER_CASE_LINE = re.compile(r"\r?\n[ \t]*[a-z(]")
_LETTER = re.compile(r"[^\W_]")
_ABBREVIATIONS = frozenset(
    {"dr", "prof", "approx", "ca", "e.g", "i.e", "etc", "vs", "cf", "fig", "max", "min"}
    | {"resp", "art", "inf", "sup", "post", "ant"}
)


def join_report(findings: str, impression: str) -> str:
    """Joins the two sections into the text that a model learns to answer.

    `split_report` gives the stripped sections back if neither contains an ``Impression:`` heading.
    """
    return f"Findings: {findings.strip()}\nImpression: {impression.strip()}"


def headed_report(findings: str, impression: str) -> str:
    """The two sections on one line with headings, as in CT-RATE's challenge.

    If one section is empty, the other stands without a heading.
    """
    parts = findings.strip(), impression.strip()
    return f"Findings: {parts[0]} Impression: {parts[1]}" if all(parts) else "".join(parts)


def split_report(text: str) -> tuple[str, str]:
    """Splits an answer into (findings, impression), each stripped.

    A text without headings counts as findings. Headings may be in any case, end in a colon or stand
    on a line of their own, also in Markdown.
    """
    match = _ANSWER.match(text)
    if match is None:
        return text.strip(), ""
    return match["findings"].strip(), (match["impression"] or "").strip()


@lru_cache(maxsize=1 << 16)
def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of every sentence in ``text``, without surrounding white space.

    Points in decimals, dates, initials and list numbers end no sentence; a closing point belongs to
    its sentence. Results are cached, since several analyses read the same reports.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        place, mark = match.start(), match[0]
        if mark == "." and _belongs_to_a_word(text, place):
            continue
        if mark in "-*–" and place and not text[place - 1].isspace():
            continue
        if mark == " " and not (text[place + 1].isdigit() or _ends_statement(text, place)):
            continue
        if mark in "\r\n" and _is_wrapped(text, place):
            continue
        _append_span(spans, text, start, match.end() if mark in ".?" else place)
        start = match.end()
    _append_span(spans, text, start, len(text))
    return tuple(spans)


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text`` in order; see `sentence_spans`."""
    return [text[start:end] for start, end in sentence_spans(text)]


def _is_wrapped(text: str, place: int) -> bool:
    """Whether a line break only wraps: a long line continues in lower case after it."""
    line = text[max(0, place - _WRAPPED_AT) : place].rstrip("\r")
    is_long = len(line) >= _WRAPPED_AT - 1 and "\n" not in line
    return is_long and line[-1] not in ".?!:;" and _LOWER_CASE_LINE.match(text, place) is not None


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
