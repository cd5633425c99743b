"""Text from outside made safe to print, keep, compare and use as a path.

Anybody may have written tables, headers and file names. Cells of a CSV file are made safe by
`tables.format_csv`.
"""

import os.path
import re
import unicodedata
from pathlib import Path, PurePosixPath

_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters, line and paragraph separators, bidirectional overrides, lone surrogates."""
_UNPRINTABLE = re.compile(rf"(?![\n\t])[{_CONTROLS}]")
_UNCLEAN = re.compile(rf"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)|[{_CONTROLS}]")
_MAX_NAME_BYTES, _MAX_FILE_NAME_BYTES = 100, 200
"""Below the 255 that file systems allow, since suffixes and those of temporary files are added."""
_LETTER = re.compile(r"[^\W\d_]")
_NO_LETTERS = re.compile(r"[\W\d_]+")
_LONGEST_PLACEHOLDER = 200
_PLACEHOLDER = re.compile(
    r"""(?:(?:
        findings? | impressions?                            # headings of nothing
      | nan | na | n\ a | nat | none | null | nil | unknown | undefined | missing | empty | blank
      | (?:not|none)\ (?:given|available|applicable|provided|reported|recorded|stated|specified)
      | no\ (?:report|text|data|value|information|impression)
        (?:\ (?:given|available|provided|recorded))?
      | unavailable
    )(?:\ |\Z))*""",
    re.VERBOSE,
)
_NO_NAMES = frozenset({"", "nan", "nat", "none", "null", "<na>", "n/a", "#n/a"})

_SPEAKER = r"(?:system|user|assistant|model|human|gpt)"
_SPECIAL_TOKEN = re.compile(
    rf"""
    <\|start_header_id\|>\s?{_SPEAKER}?\s?<\|end_header_id\|>  # a turn, and who speaks
  | <(?:\|im_start\||start_of_turn)>(?:{_SPEAKER}\b)?
  | <\|(?!eot_id\|)[\w./-]{{1,40}}\|>                      # Llama 3, Qwen, Phi, GPT
  | <｜[^<>｜]{{1,40}}｜>                                    # DeepSeek
  | </?(?:s|pad|unk|bos|eos|sos|cls|sep|mask|image|video)>
  | <(?:end_of_(?:turn|text|utterance)|endoftext|startoftext|extra_id_\d+|unused\d+)>
  | \[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS|/?INST)\]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_END_OF_TURN = "<|eot_id|>"


def without_special_tokens(text: str) -> str:
    """A text without the special tokens that language models of known families leave in it.

    A token at an end goes with the white space beside it, as in ``<s> No nodule. </s>``.
    ``<|eot_id|>`` goes alone, as CT-RATE's challenge deletes it.
    """
    first, *rest = _SPECIAL_TOKEN.split(text)
    kept = first if first.strip() or not rest else ""
    for piece in rest:
        kept += piece if kept and not kept[-1].isspace() else piece.lstrip()
    if rest and not rest[-1].strip():
        kept = kept.rstrip()
    return kept.replace(_END_OF_TURN, "")


def printable(text: str) -> str:
    """A text that cannot command a terminal: control characters are escaped as Python does.

    Line feeds and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def plain_text(text: str) -> str:
    """A text without escape sequences and control characters, and with single spaces."""
    return " ".join(_UNCLEAN.sub(" ", text).split())


def nfc(name: str) -> str:
    """A name in Unicode's composed form (NFC), so that names that look the same compare equal."""
    return unicodedata.normalize("NFC", name)


def without_placeholder(text: str) -> str:
    """The text as it stands, or an empty one where it is only a placeholder.

    Placeholders are "Not given.", "N/A", "nan", "none" and the like, in any case and punctuation,
    and texts without a letter.
    """
    if len(text) > _LONGEST_PLACEHOLDER:
        return text if _LETTER.search(text) else ""
    words = _NO_LETTERS.sub(" ", text).strip().casefold()
    return "" if _PLACEHOLDER.fullmatch(words) else text


def names_nothing(cell: str) -> bool:
    """Whether a cell is empty, or holds what tools write where there is nothing, such as nan."""
    return cell.strip().casefold() in _NO_NAMES


def file_name(name: str) -> str:
    """A name reduced to letters and digits of any script, ``.``, ``_`` and ``-``; maybe empty."""
    characters = (each if _fits_a_file(each) else "/" for each in nfc(name))
    fit = re.sub("/+", "-", "".join(characters)).strip("-.")
    return fit.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip("-.")


def _fits_a_file(character: str) -> bool:
    return character in "._-" or unicodedata.category(character)[0] in "LMN"  # letter, mark, digit


def is_file_name(name: str) -> bool:
    """Whether a name can be that of a file directly in a folder, on any system."""
    fits = 0 < len(name.encode(errors="replace")) <= _MAX_FILE_NAME_BYTES
    return fits and name not in (".", "..") and not re.search(rf"[/\\{_CONTROLS}]", name)


def named_path(folder: Path, path: str, *, allow_outside: bool = False) -> Path | None:
    """The path that a file in ``folder`` names; None where it leads out without ``allow_outside``.

    The name may be in another Unicode form than on disk. Links are followed.
    """
    normal = PurePosixPath(os.path.normpath(path))
    leads_out = normal.is_absolute() or normal.parts[:1] in ((), ("..",))
    if leads_out and not allow_outside:
        return None
    forms = (str(normal), *(unicodedata.normalize(form, str(normal)) for form in ("NFC", "NFD")))
    return next((each for form in forms if (each := folder / form).exists()), folder / normal)
