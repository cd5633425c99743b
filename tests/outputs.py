"""What a stage left in its folder."""

import hashlib
import re
from pathlib import Path


def hashes(out: Path) -> dict[str, str]:
    """By file, but for the ledger, which holds times; nothing temporary may be among them.

    The commit in prepare.json does not count, as one may come while tests run.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != "ledger.sqlite":
            content = path.read_bytes()
            if path.name == "prepare.json":
                content = re.sub(rb'"(commit|crc32)": "[0-9a-f]+"', b"", content)
            found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found
