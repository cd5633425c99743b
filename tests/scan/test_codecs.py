"""Compressed slices: decoded by a child process that hostile data cannot lead astray."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from ctscribe.base.errors import CtscribeError
from ctscribe.scan import dicom_decoder as decoder
from ctscribe.scan import dicom_pixels
from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.dicom_decoder import open_decoder
from ctscribe.scan.volume import CTVolume
from tests.dicom import bytes_of, slice_of, write_series
from tests.refusals import refusal

RANDOM = np.random.default_rng(0)
SMALL = CTVolume(
    np.asfortranarray(RANDOM.integers(-1024, 3000, (7, 6, 4), dtype=np.int16)),
    np.diag([0.7, 0.8, 2.0, 1.0]),
)


def jpeg_lossless(plane: np.ndarray) -> bytes:
    """ITU-T T.81 process 14, predictor 1, one Huffman code of 5 bits per size of difference."""
    rows, columns = plane.shape
    wide = plane.astype(np.int64)
    predicted = np.empty_like(wide)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = wide[:, :-1], wide[:-1, 0], 1 << 15
    bits = ""
    for found in (wide - predicted).ravel():
        difference = (int(found) + 32768) % 65536 - 32768
        size = abs(difference).bit_length()
        bits += f"{size:05b}"
        if 0 < size < 16:
            low = difference if difference > 0 else difference + (1 << size) - 1
            bits += f"{low:0{size}b}"
    bits += "1" * (-len(bits) % 8)
    data: bytes = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = b"\xff\xc3\0\x0b\x10" + int(rows).to_bytes(2, "big") + int(columns).to_bytes(2, "big")
    table = b"\xff\xc4\0\x24\0" + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17))
    scan = b"\xff\xda\0\x08\x01\x01\0\x01\0\0"
    return b"".join([b"\xff\xd8", frame, b"\x01\x01\x11\0", table, scan, data, b"\xff\xd9"])


def compressed(image: FileDataset, content: bytes, syntax: UID) -> None:
    image.file_meta.TransferSyntaxUID = syntax
    image.BitsStored, image.HighBit = 16, 15
    image.PixelData = encapsulate([content])
    image["PixelData"].VR = "OB"


def plane_of(image: FileDataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, np.uint16).reshape(image.Rows, image.Columns)


def refused(folder: Path) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        read_dicom(folder, "scan-7")
    return caught.value


@pytest.mark.skipif(
    not get_decoder(JPEGLosslessSV1).is_available, reason="the extra dicom-codecs is not installed"
)
def test_jpeg_lossless(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        compressed(image, jpeg_lossless(plane_of(image)), JPEGLosslessSV1)

    hu, _, notes = read_dicom(write_series(tmp_path / "a", edit, volume=SMALL), "scan-7")
    np.testing.assert_array_equal(hu[::-1, ::-1], SMALL.hu)
    assert not notes.codes


@pytest.mark.parametrize(
    ("syntax", "name"), [(JPEGLosslessSV1, "JPEG Lossless"), (JPEGLSLossless, "JPEG-LS")]
)
def test_a_missing_decoder_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, name: str
) -> None:
    class Missing:
        is_available = False

    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda _: Missing)
    folder = write_series(tmp_path / "a", lambda image, z: compressed(image, b"\xff\xd8", syntax))
    error = refused(folder)
    assert error.code == "E_CODEC"
    assert name in error.sentence
    assert "pip install ctscribe[dicom-codecs]" in error.sentence


def with_child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a child in the decoder's place that does something else with its limits set."""
    limits = (
        "import resource, sys, time; from ctscribe.scan.dicom_decoder import MEMORY_BYTES as most\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:  # noqa: ANN401
        assert command[-1] == "ctscribe.scan.dicom_decoder"
        return real([sys.executable, "-c", limits + script], **options)

    monkeypatch.setattr(subprocess, "Popen", start)


def test_a_decoder_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with_child(monkeypatch, "time.sleep(60)")
    monkeypatch.setattr(decoder, "_FRAME_S", 0.3)
    begun = time.monotonic()
    with open_decoder("scan-7") as child, refusal("E_BOMB") as caught:
        child.decode(bytes(1 << 20), 0, (6, 7))
    assert time.monotonic() - begun < 5
    assert "scan-7 must be CT, but one slice cannot be decompressed within" in caught.value.sentence


def decoder_refuses(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """The decoder itself, first altered by some lines, is ended at its first slice."""
    script = (
        "from ctscribe.scan import dicom_decoder as decode; import pydicom.pixels.utils as utils",
        *lines,
        "decode.serve(sys.stdin.buffer, sys.stdout.buffer)",
    )
    with_child(monkeypatch, "\n".join(script))
    with open_decoder("scan-7") as child, refusal("E_BOMB"):
        child.decode(bytes_of(slice_of(0)), 0, (128, 160))


def test_a_decoder_that_works_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    spin = ("def spin(*_, **__):", "    while True: pass", "utils.pixel_array = spin")
    decoder_refuses(monkeypatch, "decode.FRAME_CPU_S = 1", *spin)


def test_a_decoder_that_wants_all_memory_is_refused_it(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_refuses(monkeypatch, "utils.pixel_array = lambda *_, **__: bytearray(20 << 30)")


@pytest.mark.parametrize(
    "answer", ["", "Y<u2", "Y<f8" + "\\0" * 20, "Y<u2\\6\\0\\0\\0\\7\\0\\0\\0short", "?" * 99]
)
def test_a_decoder_that_dies_or_lies_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with_child(monkeypatch, f"sys.stdout.buffer.write(b'{answer}')")
    with open_decoder("scan-7") as child, pytest.raises(EOFError):
        child.decode(b"x", 0, (6, 7))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_damaged_streams_are_damage(tmp_path: Path, syntax: UID) -> None:
    content = b"\xff\x4f\xff\x51\0\x2f" + RANDOM.bytes(99)
    folder = write_series(tmp_path / "a", lambda image, z: compressed(image, content, syntax))
    assert refused(folder).code == "E_TRUNCATED"


def test_no_child_outlives_its_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        started.append(real(*arguments, **options))
        return started[-1]

    def edit(image: FileDataset, z: int) -> None:
        image.compress(RLELossless, generate_instance_uid=False)

    monkeypatch.setattr(subprocess, "Popen", start)
    folder = write_series(tmp_path / "a", edit, volume=SMALL)
    hu, _, _ = read_dicom(folder, "scan-7")
    np.testing.assert_array_equal(hu[::-1, ::-1], SMALL.hu)
    (child,) = started
    assert child.returncode is not None, "nobody waited for its end"
    assert not Path(f"/proc/{child.pid}").exists()
