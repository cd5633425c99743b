"""Text from outside: what is printed, kept, matched and used as a path, and what is no report.

Tables, headers and file names may be written by anybody. Each of these functions is the only one
of its kind; what goes into a table's cell is `tables.format_csv`'s.
"""

import os.path
import re
import unicodedata
from pathlib import Path, PurePosixPath

_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""Control signs, ends of lines and paragraphs, turns of direction, halves of characters."""
_UNPRINTABLE = re.compile(rf"(?![\n\t])[{_CONTROLS}]")
_UNCLEAN = re.compile(rf"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)|[{_CONTROLS}]")
_MAX_NAME_BYTES, _MAX_FILE_NAME_BYTES = 100, 200
"""A file system takes 255; suffixes and the marks of temporary files come on top."""
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_SIGNS = re.compile(r"[\W\d_]+")
_LONGEST_NO_REPORT = 200
_NO_REPORT = re.compile(
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


_TURN = r"(?:system|user|assistant|model|human|gpt)"
_SPECIAL_TOKEN = re.compile(
    rf"""
    <\|start_header_id\|>\s?{_TURN}?\s?<\|end_header_id\|>  # a turn, and who speaks
  | <(?:\|im_start\||start_of_turn)>(?:{_TURN}\b)?
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
    """A text that a terminal shows and does not obey: control signs are escaped as in Python.

    Line feeds and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def plain_text(text: str) -> str:
    """A text without escape sequences and control signs, its white space single spaces."""
    return " ".join(_UNCLEAN.sub(" ", text).split())


def one_form(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def written(text: str) -> str:
    """A report as it stands, or nothing where it only says that there is none.

    "Not given.", "N/A", "nan", "none" and the like are no report, in any case and with any signs
    around them, and neither is what has no letter.
    """
    if len(text) > _LONGEST_NO_REPORT:
        return text if _LETTER.search(text) else ""
    words = _OTHER_SIGNS.sub(" ", text).strip().casefold()
    return "" if _NO_REPORT.fullmatch(words) else text


def file_name(name: str) -> str:
    """A name made fit for a file: letters and digits of any script, ``.``, ``_`` and ``-``.

    It may be empty.
    """
    signs = (sign if _fits_a_file(sign) else "/" for sign in one_form(name))
    fit = re.sub("/+", "-", "".join(signs)).strip("-.")
    return fit.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip("-.")


def _fits_a_file(sign: str) -> bool:
    return sign in "._-" or unicodedata.category(sign)[0] in "LMN"  # letters, their marks, digits


def is_file_name(name: str) -> bool:
    """Whether a name is that of one file in a folder, whatever the system, and leads nowhere."""
    fits = 0 < len(name.encode(errors="replace")) <= _MAX_FILE_NAME_BYTES
    return fits and name not in (".", "..") and not re.search(rf"[/\\{_CONTROLS}]", name)


def named_path(folder: Path, path: str, *, allow_outside: bool = False) -> Path | None:
    """A path that a file in this folder names; None where it leads out and must not.

    Names may be in another form of Unicode than on disk. Links are followed.
    """
    normal = PurePosixPath(os.path.normpath(path))
    leads_out = normal.is_absolute() or normal.parts[:1] in ((), ("..",))
    if leads_out and not allow_outside:
        return None
    forms = (str(normal), *(unicodedata.normalize(form, str(normal)) for form in ("NFC", "NFD")))
    return next((each for form in forms if (each := folder / form).exists()), folder / normal)
