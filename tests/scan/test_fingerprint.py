import hashlib
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.read import fingerprint, sha256_of_source
from tests.scan.nifti_files import NAME


def test_a_source_is_known_by_all_its_files(tmp_path: Path) -> None:
    for name in ("a.hdr", "a.img", "b.nii"):
        (tmp_path / name).write_bytes(name.encode())
    assert fingerprint(tmp_path / "a.img", NAME) == fingerprint(tmp_path / "a.hdr", NAME)
    assert fingerprint(tmp_path / "a.hdr", NAME)["source_bytes"] == 10
    pair, single = sha256_of_source(tmp_path / "a.hdr"), sha256_of_source(tmp_path / "b.nii")
    assert single == hashlib.sha256(b"b.nii").hexdigest()
    (tmp_path / "a.img").write_bytes(b"other")
    assert sha256_of_source(tmp_path / "a.hdr") != pair
    whole = sha256_of_source(tmp_path)
    (tmp_path / "b.nii").rename(tmp_path / "renamed")
    assert sha256_of_source(tmp_path) == whole
    with pytest.raises(CtscribeError, match="must be readable"):
        fingerprint(tmp_path / "none.nii", NAME)
