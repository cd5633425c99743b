"""The text of a table, or in one sentence why it cannot be read."""

from pathlib import Path

from ctscribe.errors import CtscribeError


def read_table_text(path: Path) -> str:
    """Reads UTF-8 text, with or without byte order mark.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, or ``E_ENCODING`` with the line.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{path} must be a readable file, but {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        is_utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "UTF-16" if is_utf_16 else f"the byte 0x{content[error.start]:02X}"
        raise CtscribeError(
            "E_ENCODING",
            f"{path} must be UTF-8 text, but line {line} holds {found}, as files saved in another "
            "encoding do",
        ) from error
