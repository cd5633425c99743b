"""A server in a process of its own, asked by a real client, as by browsers and by enemies."""

import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.recipe import read_recipe
from tests.dicom import write_series
from tests.models import tiny_model, write_run
from tests.scans import coarse_chest, image_of

KNOBS = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "volume.spacing_mm=[6,6,8]")
PLANTED = "PLANTED^NAME"
MOST_MB = 4


@dataclass(frozen=True)
class Running:
    """A server, where it is reached, and what it said on stderr."""

    process: subprocess.Popen[bytes]
    url: str
    told: Path

    def client(self, **options: object) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=120, **options)  # type: ignore[arg-type]


@contextmanager
def serving(run: Path, folder: Path, *options: str) -> Iterator[Running]:
    """A server on a free port, ended by SIGTERM unless the block ends it."""
    folder.mkdir()
    temporary, told = folder / "tmp", folder / "told.txt"
    temporary.mkdir()
    command = [sys.executable, "-m", "ctscribe.cli", "serve", str(run), "--port", "0", *options]
    with told.open("wb") as file:
        process = subprocess.Popen(
            command, stderr=file, cwd=folder, env={**os.environ, "TMPDIR": str(temporary)}
        )
    try:
        while not (found := re.search(r"Serving on (\S+);", told.read_text())):
            assert process.poll() is None, told.read_text()
            time.sleep(0.05)
        yield Running(process, found[1], told)
    finally:
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGKILL, 130), told.read_text()


def left_in(server: Running) -> list[Path]:
    return [*(server.told.parent / "tmp").glob("ctscribe-serve-*")]


@pytest.fixture(scope="module")
def run(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = read_recipe("tiny", (*KNOBS, "generate.max_new_tokens=8"))
    return write_run(tmp_path_factory.mktemp("run"), recipe, tiny_model(tokenizer), tokenizer)


@pytest.fixture(scope="module")
def nifti() -> bytes:
    return gzip.compress(image_of(coarse_chest()).to_bytes(), 1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, nifti: bytes) -> Path:
    """A folder with a file, a series, what is no scan, and links that lead out of it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.nii.gz").write_bytes(nifti)
    folder = tmp_path_factory.mktemp("scans")
    (folder / "one.nii.gz").write_bytes(nifti)
    (folder / "notes.txt").write_text("no scan")
    write_series(folder / "series")
    (folder / "link.nii.gz").symlink_to(outside / "secret.nii.gz")
    (folder / "linked").symlink_to(outside)
    return folder


@pytest.fixture(scope="module")
def server(run: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server") / "here"
    options = ("--scans", str(scans), "--max-upload-mb", str(MOST_MB), "--queue", "4")
    with serving(run, folder, *options, "--dicom-sr", "--fhir") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def upload(client: httpx2.Client, content: bytes, name: str = "scan.nii.gz") -> httpx2.Response:
    return client.post("/drafts", files={"file": (name, content)})


def drafted(client: httpx2.Client, answer: httpx2.Response) -> dict[str, httpx2.Response]:
    """Every file of a draft that was asked for."""
    assert answer.status_code == 202, answer.text
    address = answer.headers["location"]
    assert client.get(f"{address}/report.txt").status_code == 200
    state = client.get(address).json()
    assert state["status"] == "written"
    return {name: client.get(at) for name, at in state["files"].items()}


def zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    return content.getvalue()


def test_a_nifti_file_and_a_zip_become_drafts(
    client: httpx2.Client, scans: Path, nifti: bytes
) -> None:
    for content, kind in ((nifti, "NIfTI"), (zipped(scans / "series"), "DICOM")):
        files = drafted(client, upload(client, content))
        names = {"report.txt", "report.json", "report.html", "report.fhir.json"}
        assert set(files) - {"measurements.dcm"} == (
            names | {"report.dcm"} if kind == "DICOM" else names
        )
        for name, file in files.items():
            # a description of a DICOM series has room for 64 letters
            said = RESEARCH_USE.split(".")[0] if name == "measurements.dcm" else RESEARCH_USE
            assert said in " ".join(file.text.split()), name
        assert files["report.json"].json()["source_kind"] == kind
        assert files["report.json"].headers["content-type"] == "application/json"
        assert files["report.html"].headers["x-content-type-options"] == "nosniff"
        assert files["report.html"].headers["cache-control"] == "no-store"
    assert files["report.dcm"].headers["content-type"] == "application/dicom"
    assert pydicom.dcmread(io.BytesIO(files["report.dcm"].content)).Modality == "SR"


def test_a_draft_is_called_as_the_form_says_and_never_after_the_file(
    client: httpx2.Client, nifti: bytes
) -> None:
    answer = client.post(
        "/drafts", files={"file": (f"{PLANTED}.nii.gz", nifti)}, data={"name": "case 7"}
    )
    files = drafted(client, answer)
    assert files["report.json"].json()["study"] == "case 7"
    assert not any(PLANTED in file.text for file in files.values())
    assert "W_SUFFIX" not in files["report.json"].text


def test_listed_scans_are_named_by_id_alone(client: httpx2.Client, scans: Path) -> None:
    listed = client.get("/scans").json()["scans"]
    assert {scan["path"] for scan in listed} == {"one.nii.gz", "series"}
    for scan in listed:
        drafted(client, client.post("/drafts", data={"scan": scan["id"]}))
    secret = scans / "one.nii.gz"
    for path in ("one.nii.gz", str(secret), "../secret.nii.gz", "link.nii.gz", "/etc/passwd"):
        answer = client.post("/drafts", data={"scan": path})
        assert (answer.status_code, answer.json()["code"]) == (404, "E_REQUEST")


def bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(300 << 20))
    return content.getvalue()


def climbing() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../../tmp/planted.dcm", b"x" * 200)
    return content.getvalue()


def inflating_nifti() -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((512, 512, 600))
    header["magic"], header["vox_offset"] = b"n+1", 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(300 << 20))


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a zip bomb": (lambda _: bomb(), "E_BOMB"),
    "a gzip bomb": (lambda _: inflating_nifti(), "E_BOMB"),
    "a zip that leads out": (lambda _: climbing(), "E_ARCHIVE"),
    "a cut zip": (lambda _: climbing()[:-30], "E_TRUNCATED"),
    "a cut NIfTI file": (lambda nifti: nifti[: len(nifti) // 2], "E_TRUNCATED"),
    "a PDF": (lambda _: b"%PDF-1.7 ...", "E_NOT_MEDICAL"),
    "a web page": (lambda _: b"<!doctype html><title>x</title>", "E_NOT_MEDICAL"),
    "nothing": (lambda _: b"", "E_EMPTY"),
    "noise": (lambda _: bytes(range(256)) * 40, "E_NOT_NIFTI"),
    "pickled code": (lambda _: b"\x80\x04cos\nsystem\n(S'id'\ntR.", "E_NOT_NIFTI"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_scan_ends_in_its_code(
    client: httpx2.Client, server: Running, nifti: bytes, name: str
) -> None:
    make, code = HOSTILE[name]
    answer = upload(client, make(nifti), f"../../{PLANTED}.nii.gz")
    assert answer.status_code == 202
    told = client.get(f"{answer.headers['location']}/report.txt")
    assert told.status_code == 422
    assert told.json()["code"] == code
    assert told.json()["use"] == RESEARCH_USE
    state = client.get(answer.headers["location"]).json()
    assert (state["status"], state["error"]) == ("refused", told.json())
    assert not any((server.told.parent / "tmp").rglob("scan*"))
    assert PLANTED not in told.text + server.told.read_text()


def test_too_large_an_upload_is_refused_whether_or_not_it_says_so(
    client: httpx2.Client, nifti: bytes
) -> None:
    large = bytes((MOST_MB + 8) << 20)
    answer = upload(client, large)
    assert (answer.status_code, answer.json()["code"]) == (413, "E_UPLOAD")

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(MOST_MB + 8):
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/drafts", content=endless(), headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "E_UPLOAD")
    drafted(client, upload(client, nifti))


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda client: client.get("/nowhere"), 404),
        (lambda client: client.get("/drafts/none"), 404),
        (lambda client: client.get("/drafts/..%2f..%2fetc/passwd"), 404),
        (lambda client: client.delete("/drafts"), 405),
        (lambda client: client.post("/drafts", json={"scan": "x"}), 415),
        (lambda client: client.post("/drafts", data={"name": "x"}), 400),
        (lambda client: client.post("/drafts", data={"scan": "x" * 300}), 400),
        (
            lambda client: client.post(
                "/drafts", content=b"--", headers={"content-type": "multipart/form-data"}
            ),
            400,
        ),
        (
            lambda client: client.post(
                "/drafts", files=[("file", ("a", b"1")), ("file", ("b", b"2"))]
            ),
            400,
        ),
        (lambda client: client.get("/", headers={"host": "rebound.example"}), 400),
        (lambda client: client.get("/", headers={"host": "localhost.rebound.example"}), 400),
        (
            lambda client: client.post("/drafts", headers={"origin": "http://rebound.example"}),
            403,
        ),
        (lambda client: client.post("/drafts", headers={"origin": "null"}), 403),
        (lambda client: client.post("/drafts", headers={"sec-fetch-site": "cross-site"}), 403),
    ],
)
def test_other_requests_are_refused_in_json(
    client: httpx2.Client,
    request_of: Callable[[httpx2.Client], httpx2.Response],
    status: int,
) -> None:
    answer = request_of(client)
    assert answer.status_code == status
    assert answer.json()["code"] == "E_REQUEST"
    assert answer.json()["use"] == RESEARCH_USE
    assert not {"access-control-allow-origin", "set-cookie"} & set(answer.headers)


def test_a_file_of_a_draft_is_none_but_its_own(client: httpx2.Client, nifti: bytes) -> None:
    address = upload(client, nifti).headers["location"]
    for name in ("scan.nii.gz", "..", "..%2f..%2fx", "report.exe"):
        assert client.get(f"{address}/{name}").status_code in (404, 405)


def test_a_browser_is_led_from_the_form_to_the_page(
    server: Running, nifti: bytes, scans: Path
) -> None:
    with server.client(headers={"accept": "text/html"}, follow_redirects=True) as browser:
        form = browser.get("/").text
        assert "form-action 'self'" in form
        assert "one.nii.gz" in form
        assert "<script" not in form
        page = browser.post(
            "/drafts",
            files={"file": ("a.nii.gz", nifti)},
            headers={"origin": server.url, "sec-fetch-site": "same-origin"},
        )
        while not page.url.path.endswith(".html"):
            assert page.headers["refresh"] == "2"
            page = browser.get(page.url)
        assert RESEARCH_USE in page.text
        refused = browser.post("/drafts", files={"file": ("a", b"%PDF")})
        while "E_NOT_MEDICAL" not in refused.text:
            assert refused.headers["refresh"] == "2"
            refused = browser.get(refused.url)


def test_fifty_at_once_are_all_served_in_turn(server: Running, nifti: bytes) -> None:
    def ask(number: int) -> tuple[str, int]:
        refused = 0
        with server.client() as client:
            while True:
                data = {"name": f"case {number}"}
                answer = client.post("/drafts", files={"file": ("a", nifti)}, data=data)
                if answer.status_code == 202:
                    file = client.get(f"{answer.headers['location']}/report.json")
                    return file.json()["study"], refused
                assert (answer.status_code, answer.json()["code"]) == (503, "E_QUEUE")
                assert int(answer.headers["retry-after"]) >= 1
                refused += 1
                time.sleep(0.2)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert [study for study, _ in answers] == [f"case {number}" for number in range(50)]
    assert any(refused for _, refused in answers)


@pytest.mark.long
def test_a_slow_upload_holds_nobody_up_but_takes_its_place(
    run: Path, tmp_path: Path, nifti: bytes
) -> None:
    with serving(run, tmp_path / "server", "--queue", "1") as server, server.client() as client:
        slow, gone = (begin_upload(server) for _ in range(2))
        wait_until(lambda: upload(client, nifti).status_code == 503)
        gone.close()  # its place is free again
        wait_until(lambda: upload(client, nifti).status_code == 202)
        assert client.get("/scans").status_code == 200
        slow.close()


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to hold")


def begin_upload(server: Running) -> socket.socket:
    """A client that sends the beginning of a form and then nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"POST /drafts HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode()
    )
    return connection


@pytest.fixture(scope="module")
def slow_run(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its texts never end before their limit, as the sign of their end is never the likeliest."""
    recipe = read_recipe("tiny", (*KNOBS, "generate.max_new_tokens=600"))
    qwen = tiny_model(tokenizer)
    with torch.no_grad():
        qwen.lm_head.weight[tokenizer.all_special_ids] = 0
    return write_run(tmp_path_factory.mktemp("slow"), recipe, qwen, tokenizer)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_draft_at_work_be_finished_and_tells_the_others(
    slow_run: Path, tmp_path: Path, nifti: bytes, number: signal.Signals
) -> None:
    with serving(slow_run, tmp_path / "server") as server, server.client() as client:
        first, second = (upload(client, nifti).headers["location"] for _ in range(2))

        def fetch(address: str) -> httpx2.Response:
            with server.client() as own:
                return own.get(f"{address}/report.txt")

        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(fetch, address) for address in (first, second)]
            states = [client.get(address).json()["status"] for address in (first, second)]
            assert states == ["writing", "waiting"]
            server.process.send_signal(number)
            finished, told = (each.result() for each in waiting)
        assert finished.status_code == 200, finished.text
        assert (told.status_code, told.json()["code"]) == (503, "E_QUEUE")
        assert server.process.wait(60) == 0
        lines = server.told.read_text().splitlines()
        assert lines[-1] == "Ended"
        assert "draft 1: written in" in lines[-2]
        assert left_in(server) == []


@pytest.mark.long
def test_a_second_interruption_ends_it_at_once_and_leaves_nothing(
    slow_run: Path, tmp_path: Path, nifti: bytes
) -> None:
    options = ("--set", "generate.max_new_tokens=20000")
    with serving(slow_run, tmp_path / "server", *options) as server, server.client() as client:
        address = upload(client, nifti).headers["location"]
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: upload(client, nifti).status_code == 503)
        assert client.get(address).json()["status"] == "writing"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130
        assert left_in(server) == []


@pytest.mark.long
def test_what_a_killed_server_left_is_removed_and_a_living_ones_is_not(
    run: Path, server: Running, tmp_path: Path
) -> None:
    with serving(run, tmp_path / "killed") as killed:
        killed.process.kill()
        killed.process.wait()
    (left,) = left_in(killed)
    temporary = server.told.parent / "tmp"
    left = left.rename(temporary / left.name)
    os.utime(left, (0, 0))
    (living,) = (path for path in left_in(server) if path != left)
    os.utime(living, (0, 0))
    environment = {**os.environ, "TMPDIR": str(temporary)}
    code = "from ctscribe.show.serving.server import _own_folder\nwith _own_folder(): pass"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert left_in(server) == [living]


def start(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command where it ends by itself, after a line of Python."""
    words = ["ctscribe", "serve", *arguments]
    script = f"import sys\n{code}\nsys.argv = {words!r}\nfrom ctscribe.cli.app import main\nmain()"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_a_taken_address_and_a_missing_package_are_one_sentence(run: Path, server: Running) -> None:
    port = server.url.rpartition(":")[2]
    absent = "sys.modules['fastapi'] = None"
    for ended, told in (
        (start(str(run), "--port", port), f"127.0.0.1:{port} must be free to listen on"),
        (start(str(run), code=absent), "fastapi"),
        (start(str(run), "--scans", "nowhere"), "nowhere must be a folder"),
        (start("nowhere"), "[E_MISSING]"),
    ):
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert told in ended.stderr


def test_another_host_is_told_of(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path / "server", "--host", "0.0.0.0") as server:
        assert "note: whoever reaches 0.0.0.0" in server.told.read_text()
        with httpx2.Client() as client:
            url = server.url.replace("0.0.0.0", "127.0.0.1")
            assert client.get(f"{url}/scans").status_code == 200


def test_the_log_names_nobody(server: Running) -> None:
    lines = server.told.read_text().splitlines()
    allowed = re.compile(r"Serving on \S+; .*|draft \d+: (written in [\d.]+ s|refused, E_[A-Z_]+)")
    assert [line for line in lines if not allowed.fullmatch(line)] == []
