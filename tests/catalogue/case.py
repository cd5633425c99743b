"""One bad input: how it is built, and how reading it has to end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.read import read_volume
from tests.scans import CHEST

STUDY = "scan-7"
Build = Callable[[Path], Path]


@final
@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        row: Of the catalogue.
        name: Of the case within it.
        build: Makes the input in an empty folder; gives what is to be read.
        code: Of the refusal, or of all warnings, parted by spaces; "" where there are none.
        says: Part of the refusal's sentence.
        options: Of `read_volume`.
        check: What else must hold of the volume and its notes; None compares it with `CHEST`.
    """

    row: int
    name: str
    build: Build
    code: str = ""
    says: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    check: Callable[..., None] | None = None

    @property
    def codes(self) -> frozenset[str]:
        """All that it ends in."""
        return frozenset(self.code.split())

    def hold(self, folder: Path) -> None:
        """Builds the input, reads it, and asserts that it ends as it must."""
        path = self.build(folder)
        if self.code.startswith("E_"):
            with pytest.raises(CtscribeError) as caught:
                read_volume(path, study=STUDY, **self.options)
            sentence = caught.value.sentence
            assert caught.value.code == self.code, sentence
            assert self.says
            assert self.says in sentence
            assert sentence.startswith(f"{STUDY} must ")
            assert str(folder) not in sentence
            assert "\n" not in sentence
            return
        volume, notes = read_volume(path, study=STUDY, **self.options)
        assert notes.codes == self.codes
        if self.check is not None:
            self.check(volume, notes)
            return
        np.testing.assert_array_equal(volume.hu, CHEST.hu)
        np.testing.assert_allclose(volume.affine, CHEST.affine, atol=1e-4)
