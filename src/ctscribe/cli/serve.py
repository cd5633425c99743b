"""The command that serves drafts over HTTP."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ctscribe.base.errors import CtscribeError
from ctscribe.cli.console import say
from ctscribe.cli.last_guard import explained
from ctscribe.cli.options import NO_DOCUMENTS, Documents, Overrides, app

_PACKAGES = ("fastapi", "python_multipart", "uvicorn")


@app.command
def serve(
    run: Path,
    *,
    scans: Annotated[
        Path | None, Parameter(help="Folder of scans that may be named instead of uploaded.")
    ] = None,
    host: Annotated[
        str, Parameter(help="Address to listen on; any but this machine's own is told of.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        Parameter(help="Port to listen on; 0 takes a free one.", validator=Number(gte=0, lt=65536)),
    ] = 8000,
    queue: Annotated[
        int, Parameter(help="Drafts that may wait; more are sent away.", validator=Number(gte=0))
    ] = 8,
    max_upload_mb: Annotated[
        int, Parameter(help="Longest upload, in megabytes.", validator=Number(gt=0))
    ] = 2048,
    documents: Documents = NO_DOCUMENTS,
    overrides: Overrides = (),
) -> None:
    """Write drafts of uploaded scans with RUN's best weights, for browsers and programs."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise CtscribeError("E_SERVE", f"serving needs {missing[0]}, but it is not installed")
    if scans is not None and not scans.is_dir():
        raise CtscribeError("E_MISSING", f"{scans} must be a folder, but is not")
    from ctscribe.show.report import save_report
    from ctscribe.show.serving.server import ServerOptions
    from ctscribe.show.serving.server import serve as serve_drafts
    from ctscribe.write.writer import ReportWriter

    outputs = documents.outputs()
    writer = ReportWriter(run).with_overrides(overrides)
    writer.require_tower()
    _ = writer.qwen  # a run without whole weights is told now, not at the first scan
    options = ServerOptions(host, port, scans, queue, max_upload_mb << 20)
    if not options.is_local:
        say(
            f"note: whoever reaches {host} may send scans and read what it lists; there is no "
            "password, and nothing is encrypted"
        )

    def draft(source: Path, name: str | None, folder: Path) -> list[Path]:
        these = outputs.of(source)
        images = these.read_source(source)
        written = writer.report(source, name)
        return [*save_report(written, folder).values(), *these.save(written, images, folder)]

    serve_drafts(draft, _explain, options, say)


def _explain(error: Exception) -> CtscribeError:
    if isinstance(error, OSError):
        # the system would name the file, which may be called after a patient
        return CtscribeError("E_READ", f"the scan must be readable, but {error.strerror}")
    return explained(error)[0]
