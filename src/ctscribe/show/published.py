"""What others have published on CT-RATE, to be printed under a table of our scores, set apart.

In: nothing. Out: one `Table`. Each row is as its source prints it.
"""

from typing import NamedTuple

from ctscribe.show.tables import UNDEFINED, Table

AS_OF = "2026-11-28"
"""When the sources were read."""

_NOT_COMPARABLE = (
    f"As printed by the sources, read up to {AS_OF}. These rows may not be compared with those "
    "above, nor rows of different sources with each other: split, labeler, number of labels, text "
    "handling and averaging differ, and runs of others' weights did not reproduce their numbers "
    "(CT-CHAT's macro-F1: .184 printed, .161 and .224 in a later paper).",
    "To compare, score the systems' reports with `ctscribe evaluate`, which reads their formats.",
    "Macro-F1 is over the 18 findings, RadBERT being the text classifier of CT-CLIP.",
)


class _Row(NamedTuple):
    system: str
    source: str
    year: str
    split: str
    labeler: str
    f1_macro: str
    crg: str
    bleu: str


_VALID, _HIDDEN, _RADBERT = "validation", "hidden test", "RadBERT"
_BTB3D = "BTB3D paper, table 3"
_CHALLENGE = "VLM3D 2026 ranking"
_UNSAID = UNDEFINED

_ROWS = (
    _Row("CT2Rep", _BTB3D, _UNSAID, _VALID, _UNSAID, ".160", ".359", "BLEU-1 .372"),
    _Row("Merlin", _BTB3D, _UNSAID, _VALID, _UNSAID, ".160", ".352", "BLEU-1 .231"),
    _Row("CT-CHAT", _BTB3D, _UNSAID, _VALID, _UNSAID, ".184", ".368", "BLEU-1 .373"),
    _Row("BTB3D-16", _BTB3D, _UNSAID, _VALID, _UNSAID, ".258", ".370", "BLEU-1 .439"),
    _Row(
        "Qwen2.5-VL-7B, fine-tuned",
        *("AbSteering", "2026", _VALID, _RADBERT, ".256", _UNSAID, "BLEU-4 .2125"),
    ),
    _Row(
        "Qwen2.5-VL-7B, AbSteering",
        *("AbSteering", "2026", _VALID, _RADBERT, ".379", _UNSAID, "BLEU-4 .2140"),
    ),
    _Row("CLarGen", "arXiv:2605.30984", "2026", _UNSAID, _UNSAID, ".487", ".472", _UNSAID),
    _Row("NV-Reason-CT", "arXiv:2609.27511", "2026", _UNSAID, _UNSAID, ".592", _UNSAID, _UNSAID),
    _Row("DCP-PD", "arXiv:2604.10437", "2026", _UNSAID, _UNSAID, ".603", _UNSAID, _UNSAID),
    _Row(
        "Entry metu-qedi",
        *(_CHALLENGE, "2026", _HIDDEN, _RADBERT, ".605", ".524", "BLEU .256"),
    ),
    _Row(
        "Entry Beyond Normals, first place",
        *(_CHALLENGE, "2026", _HIDDEN, _RADBERT, ".648", ".571", "BLEU .263"),
    ),
)


def published_table() -> Table:
    """The published rows with source, year, split and labeler, and why they stand apart."""
    columns = ("System", "Source", "Year", "Split", "Labeler", "F1, macro", "CRG", "BLEU")
    rules = tuple(i for i in range(1, len(_ROWS)) if _ROWS[i].source != _ROWS[i - 1].source)
    title = f"Published on CT-RATE, not comparable (as of {AS_OF})"
    return Table(title, columns, _ROWS, _NOT_COMPARABLE, rules)
