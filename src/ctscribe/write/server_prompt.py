"""Makes vLLM build the prompt that a run was trained on, and checks that it did.

In: a run, and a prepared scan that is sent as a video. Out: vLLM's fields that go with the frames,
and a check of the prompt's token ids that the server returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.backbone import Backbone, Positions
from ctscribe.learn.model.checkpoint import foreign_weights
from ctscribe.learn.model.families import backbone_in, with_markers
from ctscribe.learn.model.features import frames_of
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.prompt import VIDEO_PAD, encode_prompt
from ctscribe.write.endpoint import Reply
from ctscribe.write.writer import ReportWriter

_SLICES_PER_SECOND = 2.0
_TENTHS_PER_SECOND = 10.0


@final
@dataclass(frozen=True)
class TrainedPrompt:
    """Builds the prompt of a run's model; no weights are needed."""

    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    positions: Positions

    def shown(self, prepared: Prepared, study: StudyRow) -> Visual:
        """The visual input of a study: its frames, with the texts before slice pairs if any."""
        visual = frames_of(self.backbone, prepared, study)
        return with_markers(self.backbone, visual, self.positions)

    def require_read(self, reply: Reply, visual: Visual, cue: tuple[str, ...] | None) -> None:
        """Refuses a reply to another prompt, such as one with slices left out or rescaled.

        Ids of visual tokens are not compared, because some servers replace them.

        Raises:
            CtscribeError: ``E_ENDPOINT``, also where the server tells nothing of its prompt.
        """
        ids = encode_prompt(self.tokenizer, visual.grid_thw, cue, visual.markers)
        pad, read = self.tokenizer.convert_tokens_to_ids(VIDEO_PAD), reply.prompt_ids
        number = reply.num_prompt_tokens if read is None else len(read)
        if number != len(ids):
            found = "does not tell what it reads" if number is None else f"reads {number}"
        elif read and any(own not in (pad, each) for own, each in zip(ids, read, strict=True)):
            found = "reads others"
        else:
            return
        raise CtscribeError(
            "E_ENDPOINT",
            f"the server must read the prompt that the run was trained on, of {len(ids)} tokens, "
            f"but it {found}",
        )


def trained_prompt(writer: ReportWriter) -> TrainedPrompt:
    """Loads what a run's prompt depends on: family, tokenizer and position mode.

    Raises:
        CtscribeError: ``E_WEIGHTS``.
    """
    best = writer.run_dir / "best"
    with foreign_weights(str(best)):
        tokenizer = AutoTokenizer.from_pretrained(best, local_files_only=True)
        return TrainedPrompt(backbone_in(best), tokenizer, writer.recipe.model.positions)


def fields_of_a_video(num_slices: int, markers: Sequence[str] | None) -> dict[str, Any]:
    """Request fields of vLLM for a video, with which it builds the run's prompt.

    A slice pair lasts one second. In families whose prompt has timestamps, both slices of a pair
    get the pair's time: frame indices then count tenths of a second, the timestamps' precision.
    """
    fps, indices = _SLICES_PER_SECOND, list(range(num_slices))
    if markers is not None:
        times = (float(marker.strip("<>").removesuffix(" seconds")) for marker in markers)
        fps = _TENTHS_PER_SECOND
        indices = [round(fps * time) for time in times for _ in range(2)]
    video = {
        "fps": fps,
        "frames_indices": indices,
        "total_num_frames": max(num_slices, *(index + 1 for index in indices)),
        "num_frames": -1,  # or the first 32 are taken
    }
    return {
        "mm_processor_kwargs": {"do_sample_frames": False},
        "media_io_kwargs": {"video": video},
        "return_token_ids": True,
    }
