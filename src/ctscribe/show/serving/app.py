"""The server's addresses: scans come in by one form, drafts go out as the files they are saved as.

``POST /drafts`` takes ``file`` (an upload) or ``scan`` (an id of ``GET /scans``), and ``name``.
``GET /drafts/ID`` tells how far it is, ``GET /drafts/ID/FILE`` waits for it and gives one of its
files. A browser gets pages where others get JSON.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from ctscribe.base.about import RESEARCH_USE, __version__
from ctscribe.base.errors import CtscribeError
from ctscribe.scan.inflate import GZIP
from ctscribe.show.page import render
from ctscribe.show.serving import queue as queues
from ctscribe.show.serving.guard import error_as_json, told_of
from ctscribe.show.serving.listed import ListedScans
from ctscribe.show.serving.queue import DraftQueue, Explain, files_of

_FIELDS = ("file", "scan", "name")
_MAX_FIELD_BYTES = 1000
_LONGEST_NAME = 200
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "scan": {"type": "string"},
                "name": {"type": "string", "maxLength": _LONGEST_NAME},
            },
        }
    }
}


def make_app(queue: DraftQueue, scans: ListedScans, explain: Explain) -> FastAPI:
    """The application; `guard.Guard` stands before it."""
    # no page of documentation: FastAPI's loads its scripts from elsewhere
    app = FastAPI(
        title="ctscribe",
        version=__version__,
        description=RESEARCH_USE,
        docs_url=None,
        redoc_url=None,
    )
    _tell_errors(app, queue, explain)
    _take_scans(app, queue, scans)
    _give_drafts(app, queue)
    return app


def _take_scans(app: FastAPI, queue: DraftQueue, scans: ListedScans) -> None:
    """The form, the list, and where both are sent."""

    @app.get("/", response_class=HTMLResponse)
    def first_page() -> str:
        return render("serving.html", scans=scans.list(), draft=None)

    @app.get("/scans")
    def list_scans() -> dict[str, Any]:
        listed = [{"id": name, "path": path} for name, path in scans.list().items()]
        return {"use": RESEARCH_USE, "scans": listed}

    @app.post("/drafts", status_code=202, openapi_extra={"requestBody": {"content": _FORM}})
    async def ask_for_draft(request: Request) -> Response:
        with queue.place() as asked:
            async with _form(request) as form:
                name = _text(form, "name")
                source = await _source(form, scans, asked.folder)
            queue.submit(asked, source, name)
        address = f"/drafts/{asked.id}"
        if _is_browser(request):
            return RedirectResponse(address, 303)
        return JSONResponse(_state(queue, asked), 202, {"location": address})


def _give_drafts(app: FastAPI, queue: DraftQueue) -> None:
    """How far a draft is, and its files."""

    @app.get("/drafts/{draft_id}")
    async def tell_of_draft(draft_id: str, request: Request) -> Response:
        asked = _found(queue, draft_id)
        state = _state(queue, asked)
        if not _is_browser(request):
            return JSONResponse(state)
        if page := next((path for path in state["files"].values() if path.endswith(".html")), None):
            return RedirectResponse(page, 303)
        page = render("serving.html", scans={}, draft=state)
        return HTMLResponse(page, headers={"refresh": "2"} if state["error"] is None else {})

    @app.get("/drafts/{draft_id}/{file_name}")
    async def give_file(draft_id: str, file_name: str) -> Response:
        asked = _found(queue, draft_id)
        assert asked.files is not None  # it is found once it was submitted
        await asyncio.gather(asyncio.wrap_future(asked.files), return_exceptions=True)
        path = files_of(asked).get(file_name)
        if path is None:
            raise HTTPException(404, "a draft must have the file that is asked for, but has not")
        kind = "application/dicom" if path.suffix == ".dcm" else None
        return FileResponse(path, media_type=kind)  # None: as its suffix says


def _tell_errors(app: FastAPI, queue: DraftQueue, explain: Explain) -> None:
    """Ends every error in JSON."""

    async def tell(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)  # nobody reads it
        if isinstance(error, HTTPException):
            return told_of(error)
        if isinstance(error, AnyHTTPException):  # Starlette's own
            told = f"a request must be one that is answered, but this one is not: {error.detail}"
            return told_of(HTTPException(error.status_code, told, error.headers))
        return told_of(explain(error), queue.seconds_per_draft)

    for kind in (CtscribeError, AnyHTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, tell)


def _form(request: Request) -> Any:  # noqa: ANN401 - Starlette's type cannot be named
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise HTTPException(415, "a draft must be asked for by a form, but what came is none")
    return request.form(max_files=1, max_fields=len(_FIELDS), max_part_size=_MAX_FIELD_BYTES)


def _text(form: FormData, field: str) -> str | None:
    """A field of a form; None where it is left out or empty."""
    value = form.get(field)
    if isinstance(value, UploadFile) or len(value or "") > _LONGEST_NAME:
        raise HTTPException(400, f"the field {field} must be short text, but is not")
    return value or None


async def _source(form: FormData, scans: ListedScans, folder: Path) -> Path:
    """Where the scan that a form brings or names lies on disk."""
    upload, scan_id = form.get("file"), _text(form, "scan")
    is_upload = isinstance(upload, UploadFile) and bool(upload.filename or upload.size)
    if is_upload == (scan_id is not None):
        given = "both" if is_upload else "neither"
        raise HTTPException(400, f"a form must bring a file or name a scan, but does {given}")
    if isinstance(upload, UploadFile) and is_upload:
        return await asyncio.to_thread(_keep, upload, folder)
    source = await asyncio.to_thread(scans.find, scan_id or "")
    if source is None:
        raise HTTPException(404, "a scan must be one of those that are listed, but is not")
    return source


def _keep(upload: UploadFile, folder: Path) -> Path:
    """Copies an upload under a name of our own, with the suffix that its content asks for."""
    upload.file.seek(0)
    is_packed = upload.file.read(2) == GZIP
    path = folder / ("scan.nii.gz" if is_packed else "scan")
    upload.file.seek(0)
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
    except OSError as error:
        raise CtscribeError("E_WRITE", f"an upload must be kept, but {error.strerror}") from error
    return path


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _found(queue: DraftQueue, draft_id: str) -> queues.Request:
    asked = queue.find(draft_id)
    if asked is None:
        raise HTTPException(
            404, f"a draft must be one of the last {queues.KEPT} of this server, but is not"
        )
    return asked


def _state(queue: DraftQueue, asked: queues.Request) -> dict[str, Any]:
    """How far a draft is, with the addresses of its files once it is written."""
    address, names, error = f"/drafts/{asked.id}", list[str](), None
    ahead = queue.num_ahead(asked)
    status = "waiting" if ahead else "writing"
    assert asked.files is not None  # it was submitted
    if asked.files.done():
        try:
            names, status = list(files_of(asked)), "written"
        except CtscribeError as refused:
            error, status = error_as_json(refused), "refused"
    return {
        "use": RESEARCH_USE,
        "id": asked.id,
        "status": status,
        "ahead": ahead,
        "files": {name: f"{address}/{name}" for name in names},
        "error": error,
    }
