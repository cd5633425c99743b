"""The first of the files that the fuzz bench reads by the thousand, and that they stay the same."""

import hashlib
from pathlib import Path

import pytest

from benchmarks import fuzz_stored
from benchmarks.bench_fuzz import mutant, outcome
from ctscribe.base.error_codes import CODES


@pytest.mark.parametrize("first", range(0, 240, 24))
def test_mutated_files_give_a_volume_or_a_sentence(first: int) -> None:
    for number in range(first, first + 24):
        kind, ended = outcome(number)
        assert ended == "volume" or ended in CODES, f"file {number}, {kind}: {ended}"


@pytest.mark.parametrize("first", range(0, 150, 25))
def test_mutated_files_that_stages_store_are_what_they_were_or_a_sentence(first: int) -> None:
    for number in range(first, first + 25):
        kind, ended = fuzz_stored.outcome(number)
        assert ended in {"same", "other", *CODES}, f"file {number}, {kind}: {ended}"


def test_a_number_names_one_file_for_ever(tmp_path: Path) -> None:
    hashes = []
    for copy in ("a", "b"):
        (tmp_path / copy).mkdir()
        made = mutant(16, tmp_path / copy)
        hashes.append(hashlib.sha256(made.path.read_bytes()).hexdigest())
    assert hashes[0] == hashes[1]
