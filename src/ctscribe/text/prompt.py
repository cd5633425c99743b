"""All prompt wording, and the token ids of prompts and answers.

The slices come before the question, so that everything up to the question depends only on the scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, final, runtime_checkable

from ctscribe.base.errors import CtscribeError

SYSTEM = "You are a radiologist and report what a chest CT shows."
QUESTION = "Write the findings and the impression of this chest CT."
CUE = " The image suggests: {findings}."
"""Appended to the question where findings are named; `NO_FINDING` stands for an empty list."""
NO_FINDING = "no finding"
VIDEO_PAD = "<|video_pad|>"
"""The placeholder: once in the chat template's text, once per visual token in the model's input."""
VIDEO_BLOCK = f"<|vision_start|>{VIDEO_PAD}<|vision_end|>"
IGNORED = -100
"""Label of a position that carries no loss, as in torch's cross entropy."""

GridThw = tuple[int, int, int]
"""(T, H, W): slice pairs, and rows and columns of patches."""


@runtime_checkable
class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts need."""

    def __hash__(self) -> int:
        """By identity."""

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts that stand for one token each."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> Any:  # noqa: ANN401
        """Renders messages as the model was trained to read them."""

    def encode(self, text: str, **kwargs: Any) -> list[int]:  # noqa: ANN401
        """Token ids of a text."""

    def __call__(self, text: str, **kwargs: Any) -> Any:  # noqa: ANN401
        """Token ids of a text and, when asked for, where each lies in it."""


def prompt_messages(cue: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The chat before the answer: system, then a user who shows the slices and asks.

    ``cue`` lists the findings that the image suggests, which are appended to the question. None
    appends nothing; an empty list appends that there is no finding.
    """
    suggestion = "" if cue is None else CUE.format(findings=", ".join(cue) or NO_FINDING)
    question = {"type": "text", "text": QUESTION + suggestion}
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "video"}, question]},
    ]


def without_thinking(chat_template: str) -> str:
    """A chat template with thinking turned off, as in our training, whatever its caller asks."""
    if "enable_thinking" not in chat_template:
        return chat_template
    return "{%- set enable_thinking = false -%}\n" + chat_template


def num_visual_tokens(grid_thw: GridThw) -> int:
    """Visual tokens of a volume: one per 2 × 2 patches of each slice pair.

    Raises:
        CtscribeError: ``E_GRID`` when the frames' sides are not whole tokens.
    """
    slice_pairs, rows, columns = grid_thw
    if min(grid_thw) < 1 or rows % 2 or columns % 2:
        raise CtscribeError(
            "E_GRID", f"a grid must be (slice pairs, even rows, even columns), but it is {grid_thw}"
        )
    return slice_pairs * rows * columns // 4


def encode_prompt(
    tokenizer: ChatTokenizer,
    grid_thw: GridThw,
    cue: tuple[str, ...] | None = None,
    markers: tuple[str, ...] | None = None,
) -> list[int]:
    """Token ids up to the answer, for generation; see `encode_example`.

    Without ``markers`` all slices are in one vision block. With them each slice pair is in a block
    of its own, after its marker.
    """
    rendered = _render(tokenizer, cue, markers)
    num_blocks = len(markers) if markers else 1
    pads = [rendered.video_pad] * (num_visual_tokens(grid_thw) // num_blocks)
    ids = [*rendered.parts[0]]
    for part in rendered.parts[1:]:
        ids += [*pads, *part]
    return ids


def pair_of_tokens(
    tokenizer: ChatTokenizer,
    grid_thw: GridThw,
    cue: tuple[str, ...] | None = None,
    markers: tuple[str, ...] | None = None,
) -> list[int]:
    """The slice pair of each token of `encode_prompt`, −1 for tokens without one.

    With ``markers``, a pair's marker and the ends of its vision block belong to it too.
    """
    rendered = _render(tokenizer, cue, markers)
    pairs, size = range(grid_thw[0]), num_visual_tokens(grid_thw) // grid_thw[0]
    if markers is None:
        shown = [pair for pair in pairs for _ in range(size)]
        return [-1] * len(rendered.parts[0]) + shown + [-1] * len(rendered.parts[1])
    found = [-1] * (len(rendered.parts[0]) - rendered.opening) + [0] * rendered.opening
    for pair, part in zip(pairs, rendered.parts[1:], strict=True):
        following = pair + 1 if pair + 1 < len(pairs) else -1
        found += [pair] * (size + 1) + [following] * (len(part) - 1)
    return found


def encode_example(
    tokenizer: ChatTokenizer,
    report: str,
    grid_thw: GridThw,
    cue: tuple[str, ...] | None = None,
    *,
    markers: tuple[str, ...] | None = None,
    study: str = "the study",
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and answer, and labels that supervise only the answer.

    The answer is tokenised separately, as in generation, so that no token straddles its beginning.
    Its end-of-turn token is supervised too, so that the model learns to end a report.

    Args:
        tokenizer: That of a supported model, or one with its special tokens and chat template.
        report: The answer, as `sections.join_report` writes it.
        grid_thw: Grid of the study's frames.
        cue: As in `prompt_messages`; it carries no loss.
        markers: As in `encode_prompt`.
        study: Name for errors.

    Returns:
        ``input_ids`` and ``labels`` of equal length; labels are −100 outside the answer.

    Raises:
        CtscribeError: ``E_REPORT`` when the report is empty or contains a special token.
    """
    if not report.strip():
        raise CtscribeError("E_REPORT", f"{study} must have a report, but it is empty")
    for token in tokenizer.all_special_tokens:
        if token in report:
            raise CtscribeError(
                "E_REPORT", f"the report of {study} must be plain text, but it contains {token}"
            )
    prompt = encode_prompt(tokenizer, grid_thw, cue, markers)
    closing = _render(tokenizer, cue, markers).closing
    answer = [*tokenizer.encode(report, add_special_tokens=False), closing]
    return prompt + answer, [IGNORED] * len(prompt) + answer


def answer_offsets(tokenizer: ChatTokenizer, report: str) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each token in the report's text; without the end of turn."""
    encoded = tokenizer(report, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["offset_mapping"])


@final
@dataclass(frozen=True)
class _Rendered:
    parts: tuple[tuple[int, ...], ...]
    """Token ids before, between and after the blocks of visual tokens."""
    opening: int
    """How many tokens of the first part belong to the first slice pair; see `pair_of_tokens`."""
    video_pad: int
    closing: int


@lru_cache(maxsize=4096)
def _render(
    tokenizer: ChatTokenizer, cue: tuple[str, ...] | None, markers: tuple[str, ...] | None
) -> _Rendered:
    """Renders the chat, and tokenises its parts around the visual tokens and after the answer."""
    messages, answer = prompt_messages(cue), "answer"
    prompt, whole = (
        tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=chat is messages, enable_thinking=False
        )
        for chat in (messages, [*messages, {"role": "assistant", "content": answer}])
    )
    pads = tokenizer.encode(VIDEO_PAD, add_special_tokens=False)
    follows = whole.removeprefix(prompt + answer)
    closing = tokenizer.encode(follows.strip(), add_special_tokens=False)
    block = VIDEO_BLOCK if VIDEO_BLOCK in prompt else VIDEO_PAD  # exports may lack the ends
    if prompt.count(VIDEO_PAD) != 1 or len(pads) != 1 or follows == whole or len(closing) != 1:
        raise CtscribeError(
            "E_TOKENIZER",
            f"the tokenizer must have its model's chat template and {VIDEO_PAD} as one token, but "
            "its rendering does not fit",
        )
    blocks, opening = VIDEO_BLOCK, list[int]()
    if markers is not None:
        blocks = "".join(marker + VIDEO_BLOCK for marker in markers)
        opening = tokenizer.encode(blocks.partition(VIDEO_PAD)[0], add_special_tokens=False)
    prompt = prompt.replace(block, blocks)
    parts = (
        tuple(tokenizer.encode(part, add_special_tokens=False)) for part in prompt.split(VIDEO_PAD)
    )
    return _Rendered(tuple(parts), len(opening), pads[0], closing[0])
