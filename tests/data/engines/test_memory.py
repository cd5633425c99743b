from pathlib import Path

import pytest

from ctscribe.data.engines.local import available_bytes

MEMINFO = "MemTotal:       24684084 kB\nMemFree:        1000 kB\nMemAvailable:   2000 kB\n"


@pytest.mark.parametrize(
    ("limit", "anonymous", "expected"),
    [
        (None, None, 2_048_000),
        ("max", 10, 2_048_000),
        ("1000000", 400_000, 600_000),
        ("1000000", 1_200_000, 0),
        ("9000000", 0, 2_048_000),
    ],
)
def test_the_machine_or_the_container_whichever_has_less(
    tmp_path: Path, limit: str | None, anonymous: int | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.stat").write_text(f"anon {anonymous}\nfile 5\ninactive_anon 7\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == expected


def test_unknown_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "meminfo", tmp_path) is None
    assert available_bytes() is None or available_bytes() > 1e6  # type: ignore[operator]
