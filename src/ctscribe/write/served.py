"""Writes the reports of a split with a server that speaks OpenAI's chat-completions protocol.

In: a run, for its prompt and maximum length; prepared scans; an `Endpoint`. Out: one row per scan.
Only the prompt and the frames' pixels are sent: no name, no date, no other metadata.
"""

import base64
import io
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.runs import start_sha256
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.publish import places_depth_itself
from ctscribe.scan.types import Frames
from ctscribe.text.prompt import prompt_messages
from ctscribe.text.sections import split_report
from ctscribe.write.cue_table import CueTable
from ctscribe.write.endpoint import Endpoint, Reply
from ctscribe.write.generate import cue_source, report_row
from ctscribe.write.prediction_file import PredictionFile, open_prediction_file
from ctscribe.write.server_prompt import fields_of_a_video, trained_prompt
from ctscribe.write.writer import ReportWriter

SendAs = Literal["images", "video"]
_MOST_FAILURES = 3
"""Consecutive failures after which the stage gives up."""
_BURNED_IN = "W_BURNED_IN"


@final
@dataclass(frozen=True)
class Served:
    """A model on a server, and how requests are made.

    Attributes:
        endpoint: The server.
        model: The model's name on the server.
        send_as: ``images`` sends each frame as a lossless PNG, for any server that accepts images.
            ``video`` sends the frames as one video of JPEG files at best quality, as vLLM accepts
            it. That is the run's own prompt, so an answer to any other prompt is refused.
        num_parallel: Requests at once.
    """

    endpoint: Endpoint
    model: str
    send_as: SendAs = "images"
    num_parallel: int = 4

    def made_of(self) -> dict[str, Any]:
        """All that decides its reports, except the prompt.

        Local weights are identified by their hash. The address and a folder's place are left out,
        because both may change while the model stays the same.
        """
        folder = Path(self.model)
        return {
            "engine": "openai",
            "model": folder.name if folder.is_dir() else self.model,
            "model_sha256": start_sha256(self.model),
            "send_as": self.send_as,
            "temperature": 0,
        }


Cue = tuple[str, ...] | None
Ask = Callable[[StudyRow], Reply]


def generate_served(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_path: Path,
    served: Served,
    *,
    cues: CueTable | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> list[PredictionRow]:
    """As `generate`, but a server writes the reports, from the run's prompt and frames.

    A scan that the server refuses is skipped; repeating the call tries missing scans again.

    Raises:
        CtscribeError: As `generate`; ``E_OPTION`` for a run that writes as no server does,
            ``E_REMOTE`` for scans that must not leave this machine, ``E_ENDPOINT`` when a scan has
            no report in the end.
    """
    prepared.require(writer.recipe)
    _require_servable(writer, served.send_as)
    scans = prepared.scans(split, reported=False)
    if served.endpoint.is_remote:
        _require_nameless(scans)
    with open_prediction_file(out_path, scans) as file:
        told = {"cues": cue_source(writer, cues), "scans_sha256": prepared.sha256(scans)}
        max_tokens = writer.generate.max_new_tokens
        if served.send_as == "video":
            told["positions"] = writer.recipe.model.positions
        prompt = {"prompt": prompt_messages(), "max_new_tokens": max_tokens}
        file.claim(served.made_of() | prompt | told)
        missing = file.missing()
        progress(len(scans) - len(missing), len(scans))
        cue_of = _cues(writer, prepared, missing, cues)
        ask = _asker(writer, prepared, served, cue_of)
        with closing(_each_answer(missing, ask, served)) as answers:
            _append_all(answers, file, len(missing), cue_of, progress)
        return file.finish()


def _asker(
    writer: ReportWriter, prepared: Prepared, served: Served, cue_of: Callable[[StudyRow], Cue]
) -> Ask:
    """The function that requests the report of one scan."""
    write, max_tokens = served.endpoint.write, writer.generate.max_new_tokens

    def by_images(study: StudyRow) -> Reply:
        messages = messages_of(prepared.frames(study), cue_of(study), "images")
        return write(served.model, messages, max_tokens)

    if served.send_as == "images":
        return by_images
    prompt = trained_prompt(writer)

    def by_video(study: StudyRow) -> Reply:
        shown, cue = prompt.shown(prepared, study), cue_of(study)
        assert shown.frames is not None  # it is no stored feature
        fields = fields_of_a_video(len(shown.frames), shown.markers)
        messages = messages_of(shown.frames.numpy(), cue, "video")
        reply = write(served.model, messages, max_tokens, fields)
        prompt.require_read(reply, shown, cue)
        return reply

    return by_video


def _require_servable(writer: ReportWriter, send_as: SendAs) -> None:
    """Refuses a run that needs something at inference that no server does."""
    in_ids = writer.recipe.model.positions == "depth" and places_depth_itself(
        writer.run_dir / "best"
    )
    if writer.generate.contrast != "none" and writer.generate.contrast_weight:
        what, way = "generate.contrast", "pass --set generate.contrast=none"
    elif writer.recipe.model.slice_attention:
        what, way = "model.slice_attention", "use --engine local"
    elif send_as == "video" and in_ids:
        what, way = "positions of its own for depth (model.positions)", "use --engine local"
    elif writer.recipe.model.encoder is not None:
        what, way = "model.encoder", "use --engine local"
    else:
        return
    raise CtscribeError(
        "E_OPTION",
        f"--engine openai must be asked for what a server can do, but this run writes with {what}, "
        f"which none has; {way}",
    )


def _require_nameless(scans: Sequence[StudyRow]) -> None:
    named = [scan.volume_name for scan in scans if _BURNED_IN in scan.warnings]
    if named:
        raise CtscribeError(
            "E_REMOTE",
            f"scans that leave this machine must not name a patient, but {len(named)} of "
            f"{len(scans)} may have text burned into their images ({_BURNED_IN}), such as "
            f"{named[0]}",
        )


def _cues(
    writer: ReportWriter, prepared: Prepared, studies: Sequence[StudyRow], table: CueTable | None
) -> Callable[[StudyRow], Cue]:
    """The function that gives a study's cue: from a table, from the run's finding queries, or None.

    Raises:
        CtscribeError: ``E_CUES``.
    """
    if table is not None:
        if not writer.recipe.model.cues:
            raise CtscribeError(
                "E_CUES", f"{writer.run_dir} must have learned to be told findings, but it has not"
            )
        return lambda study: table.of(study.volume_name, study.scan_id)
    told = writer.cues(prepared, studies) if studies and writer.recipe.model.cues else {}
    return lambda study: told.get(study.volume_name)


def messages_of(frames: Frames, cue: Cue, send_as: SendAs) -> list[dict[str, Any]]:
    """The run's prompt as OpenAI messages, with the frames in the place of its video.

    Args:
        frames: uint8 (slices, height, width, 3), most cranial first.
        cue: See `prompt_messages`.
        send_as: See `Served`.
    """
    system, user = prompt_messages(cue)
    question = [part for part in user["content"] if part["type"] == "text"]
    if send_as == "images":
        urls = [f"data:image/png;base64,{_encoded(frame, 'PNG')}" for frame in frames]
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    else:
        pictures = [_encoded(f, "JPEG", quality=100, subsampling=0) for f in frames]
        url = f"data:video/jpeg;base64,{','.join(pictures)}"
        shown = [{"type": "video_url", "video_url": {"url": url}}]
    return [system, {**user, "content": [*shown, *question]}]


def _encoded(frame: UInt8[np.ndarray, "height width 3"], form: str, **options: int) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def _append_all(
    answers: Iterable[tuple[StudyRow, Reply | CtscribeError]],
    file: PredictionFile,
    num_missing: int,
    cue_of: Callable[[StudyRow], Cue],
    progress: ProgressCallback,
) -> None:
    """Appends reports as they arrive; raises at the end if any scan has none."""
    failed: list[tuple[StudyRow, CtscribeError]] = []
    in_a_row = 0
    for study, outcome in answers:
        if isinstance(outcome, Reply):
            sections = split_report(outcome.text)
            cue = cue_of(study)
            file.append(report_row(study, sections, None, outcome.finished, cue))
            num_missing, in_a_row = num_missing - 1, 0
            progress(len(file.scans) - num_missing, len(file.scans))
        else:
            failed.append((study, outcome))
            in_a_row += 1
            if in_a_row == _MOST_FAILURES:
                break
    if failed:
        study, error = failed[0]
        raise CtscribeError(
            "E_ENDPOINT",
            f"every scan must have a report, but {num_missing} of {len(file.scans)} have none; of "
            f"{study.volume_name}: {error.told}",
        )


def _each_answer(
    studies: Sequence[StudyRow], ask: Ask, served: Served
) -> Generator[tuple[StudyRow, Reply | CtscribeError], None, None]:
    """Yields each scan with its reply or error, in order of arrival; requests run in parallel."""
    waiting, pending = iter(studies), dict[Future[Reply], StudyRow]()
    with ThreadPoolExecutor(served.num_parallel) as pool, closing(served.endpoint):
        while True:
            for study in islice(waiting, served.num_parallel - len(pending)):
                pending[pool.submit(ask, study)] = study
            if not pending:
                return
            ready, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in ready:
                study, error = pending.pop(future), future.exception()
                if error is None:
                    yield study, future.result()
                elif isinstance(error, CtscribeError) and error.code == "E_ENDPOINT":
                    yield study, error
                else:
                    raise error
