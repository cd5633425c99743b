"""What holds for every family of models alike, on a few layers of its real class."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLImageProcessorPil,
)
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import (
    Qwen3VLVideoProcessor,
    smart_resize,
)
from transformers.video_utils import VideoMetadata

import ctscribe
from ctscribe.base.recipe import GenerateConfig, Recipe
from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.backbone import Backbone, Positions
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.contrast import prefill_contrast
from ctscribe.learn.model.decoding import write_reports
from ctscribe.learn.model.families import BACKBONES, backbone_of, with_markers
from ctscribe.learn.model.packing import require_full_attention, trim_last_layer
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.publish import publish
from ctscribe.learn.model.qwen import answer_losses, losses_of_both
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.qwen3_5 import QWEN3_5
from ctscribe.learn.model.qwen3_vl import QWEN3_VL
from ctscribe.learn.model.tower import encode_frames, patchify, project_features, speed_up_tower
from ctscribe.learn.pairs.collate import Batch, collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.text.prompt import (
    VIDEO_BLOCK,
    encode_example,
    encode_prompt,
    pair_of_tokens,
    prompt_messages,
)
from ctscribe.write.evidence import ForcedReport, leave_one_out, log_probs
from tests.learn.model.batches import ANSWERS, random_frames
from tests.models import tiny_of
from tests.refusals import refusal

SRC = Path(ctscribe.__file__).parent
SIZES = ((4, 4, 6), (6, 5, 4))
"""Slices, and rows and columns of visual tokens, of two volumes."""
PROCESSORS = {
    QWEN2_5_VL.model_type: Qwen2VLImageProcessorPil,
    QWEN3_VL.model_type: Qwen3VLVideoProcessor,
    QWEN3_5.model_type: Qwen3VLVideoProcessor,
}

Mode = pytest.mark.parametrize("mode", ["index", "depth"])


@pytest.fixture(scope="module", params=BACKBONES.values(), ids=lambda family: str(family.title))
def family(request: pytest.FixtureRequest) -> Backbone:
    chosen: Backbone = request.param
    return chosen


@pytest.fixture(scope="module")
def plain(family: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """As the library made it."""
    return tiny_of(family, tokenizer)


@pytest.fixture
def ours(family: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The same weights, as they are loaded here."""
    model = tiny_of(family, tokenizer)
    speed_up_tower(model)
    trim_last_layer(model)
    return model


def visual(family: Backbone, number: int, mode: Positions) -> Visual:
    """Frames of one of `SIZES`, some 30 mm a pair."""
    slices, rows, columns = SIZES[number]
    side = family.token_px
    return with_markers(
        family,
        Visual(
            (slices // 2, 2 * rows, 2 * columns),
            tuple(-31.7 * pair for pair in range(slices // 2)),
            random_frames(slices, rows * side, columns * side, number),
        ),
        mode,
    )


def sample(tokenizer: PreTrainedTokenizerBase, shown: Visual, answer: str) -> Sample:
    ids, labels = encode_example(tokenizer, answer, shown.grid_thw, markers=shown.markers)
    return Sample("study", torch.tensor(ids), torch.tensor(labels), shown)


def samples(family: Backbone, tokenizer: PreTrainedTokenizerBase, mode: Positions) -> list[Sample]:
    return [
        sample(tokenizer, visual(family, number, mode), answer)
        for number, answer in enumerate(ANSWERS)
    ]


def asked(model: PreTrainedModel, ids: Tensor, shown: Visual) -> dict[str, Any]:
    """One prompt as the library's own forward pass takes it."""
    family = backbone_of(model)
    assert shown.frames is not None
    patches, grid = patchify(shown.frames, family)
    given = {
        "input_ids": ids[None],
        "attention_mask": torch.ones_like(ids)[None],
        "pixel_values_videos": patches,
        "video_grid_thw": grid[None],
        "mm_token_type_ids": (ids[None] == model.config.video_token_id).int() * 2,
    }
    if family is QWEN2_5_VL:
        given["second_per_grid_ts"] = torch.tensor([1.0])
    return given


def places(model: PreTrainedModel, ids: Tensor, shown: Visual, mode: Positions) -> Tensor:
    everything, grid = torch.ones_like(ids)[None], torch.tensor([shown.grid_thw])
    mm = torch.tensor([shown.position_mm])
    return position_ids(model.config, ids[None], everything, grid, mm, mode)


def apart(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}


def decide(*models: PreTrainedModel) -> None:
    """Larger weights, or a model says one word again and again."""
    for model in models:
        for layer in linears(model.model.language_model.layers).values():
            layer.weight.data.mul_(2.5)


def specials(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that are never written."""
    return [n for n in tokenizer.added_tokens_decoder if n != tokenizer.eos_token_id]


def test_no_other_file_names_a_familys_classes() -> None:
    """Qwen2_5_VLConfig, Qwen2VLVideoProcessor, Qwen3VLModel, Qwen3_5ForCausalLM and their like."""
    named = re.compile(r"Qwen\d\w*?(VL|For|Config|Model)")
    own = {f"{name}.py" for name in BACKBONES}
    found = {path.name for path in SRC.rglob("*.py") if named.search(path.read_text())}
    assert found == own


def test_patches_are_the_librarys(family: Backbone) -> None:
    """The image processor doubles its frame in time, so a doubled slice must give the same."""
    processor = PROCESSORS[family.model_type]
    assert family.patch_px == processor.patch_size
    assert list(family.pixel_mean) == pytest.approx(processor.image_mean)
    assert list(family.pixel_std) == pytest.approx(processor.image_std)
    frame = random_frames(1, 3 * family.token_px, 2 * family.token_px)
    reference = Qwen2VLImageProcessorPil(
        min_pixels=28 * 28,
        max_pixels=10**7,
        patch_size=family.patch_px,
        image_mean=list(family.pixel_mean),
        image_std=list(family.pixel_std),
    )([Image.fromarray(frame[0].numpy())], return_tensors="pt")
    patches, grid = patchify(frame.expand(2, -1, -1, -1), family)
    assert grid.tolist() == reference["image_grid_thw"][0].tolist()
    torch.testing.assert_close(patches, reference["pixel_values"], atol=1e-6, rtol=0)


def test_frames_of_another_familys_sides_are_refused(family: Backbone) -> None:
    side = 60 - family.token_px
    with refusal("E_FRAMES", f"sides a multiple of {family.token_px} px, .* 2 of {side} × {side}"):
        patchify(random_frames(2, side, side), family)


@torch.no_grad()
def test_features_are_the_librarys(plain: PreTrainedModel, ours: PreTrainedModel) -> None:
    shown = [visual(backbone_of(ours), number, "index") for number in range(2)]
    frames = [each.frames for each in shown if each.frames is not None]
    parts = [patchify(each, backbone_of(ours)) for each in frames]
    grids = torch.stack([grid for _, grid in parts])
    output = plain.model.get_video_features(torch.cat([p for p, _ in parts]), grids)
    levels = [output.pooler_output, *getattr(output, "deepstack_features", ())]
    expected = torch.cat([torch.cat(tuple(level)) for level in levels], dim=1)
    assert apart(encode_frames(ours, frames), expected) < 1e-5


@torch.no_grad()
def test_slice_pairs_never_see_each_other(ours: PreTrainedModel) -> None:
    side = backbone_of(ours).token_px
    frames = random_frames(6, 2 * side, 3 * side)
    whole = encode_frames(ours, [frames])
    pairs = encode_frames(ours, [frames[2:4], frames[4:6], frames[0:2]])
    torch.testing.assert_close(whole, pairs.roll(len(pairs) // 3, 0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_goes_into_the_mergers_comes_out_as_features(ours: PreTrainedModel) -> None:
    frames = [random_frames(4, 2 * backbone_of(ours).token_px, backbone_of(ours).token_px)]
    before = encode_frames(ours, frames, merged=False)
    features = encode_frames(ours, frames)
    assert before.shape != features.shape
    torch.testing.assert_close(project_features(ours, before), features, atol=1e-6, rtol=1e-6)
    assert project_features(ours, features) is features


@Mode
def test_places_are_the_librarys(
    ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mode: Positions
) -> None:
    if backbone_of(ours) is QWEN2_5_VL and mode == "depth":
        pytest.skip("the library knows no depth, see test_positions")
    for each in samples(backbone_of(ours), tokenizer, mode):
        given = asked(ours, each.input_ids, each.visual)
        del given["pixel_values_videos"]
        reference, _ = ours.model.get_rope_index(**given)
        assert torch.equal(places(ours, each.input_ids, each.visual, mode), reference)


@Mode
def test_losses_and_gradients_are_those_of_a_plain_forward_pass(
    plain: PreTrainedModel,
    ours: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mode: Positions,
) -> None:
    """Two samples end to end in one row, against each alone with full logits, in double precision:
    what recurrent layers add up is float32 all the same."""
    both = samples(backbone_of(ours), tokenizer, mode)
    plain, ours = deepcopy(plain).double(), ours.double()
    expected = torch.stack(
        [
            plain(
                **asked(plain, each.input_ids, each.visual),
                position_ids=places(plain, each.input_ids, each.visual, mode),
                labels=each.labels[None],
            ).loss
            for each in both
        ]
    )
    found = answer_losses(ours, collate_samples(both, pad_id=0), mode).per_sample()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, check_dtype=False)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    found.sum().backward()  # type: ignore[no-untyped-call]
    for name, weight in plain.named_parameters():
        gradient = ours.get_parameter(name).grad
        assert gradient is not None, name
        assert apart(gradient, weight.grad) < 1e-5, name


def test_prompts_read_once_for_two_reports_leave_losses_and_gradients(
    ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Two volumes and two reports crosswise, with what every layer adds of the tower."""
    if {*getattr(ours.config.text_config, "layer_types", ())} - {"full_attention"}:
        with refusal("E_RECIPE", "layers all have full_attention"):
            require_full_attention(ours)
        return
    own = samples(backbone_of(ours), tokenizer, "depth")
    crossed = [
        sample(tokenizer, other.visual, answer)
        for other, answer in zip(own[::-1], ANSWERS, strict=True)
    ]
    ours.train()
    positive, alone = (collate_samples(some, pad_id=0) for some in (own, crossed))
    shared = collate_samples(crossed, 0, prompt_rows=[1, 0])
    assert shared["frames"] == []
    found, expected = (
        losses_of_both(ours, positive, shared, "depth"),
        (answer_losses(ours, positive, "depth"), answer_losses(ours, alone, "depth")),
    )
    gradients = []
    for right, wrong in (found, expected):
        ours.zero_grad()
        loss = right.per_sample().mean() - 0.1 * wrong.per_sample().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: weight.grad for name, weight in ours.named_parameters()})
    for branch, alone_branch in zip(found, expected, strict=True):
        torch.testing.assert_close(branch.values, alone_branch.values, atol=1e-5, rtol=1e-5)
    whole = torch.cat([gradient.flatten() for gradient in gradients[1].values()]).norm()
    for name, gradient in gradients[1].items():
        assert (gradients[0][name] - gradient).norm() < 1e-6 * whole, name


@Mode
def test_stored_features_give_the_same_losses_as_frames(
    ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mode: Positions
) -> None:
    both = samples(backbone_of(ours), tokenizer, mode)
    stored = [replace(each, visual=_stored(ours, each.visual)) for each in both]
    live, kept = (
        answer_losses(ours, collate_samples(some, pad_id=0), mode).values for some in (both, stored)
    )
    torch.testing.assert_close(kept, live, atol=1e-6, rtol=1e-6)


def _stored(model: PreTrainedModel, shown: Visual) -> Visual:
    assert shown.frames is not None
    with torch.no_grad():
        return replace(shown, frames=None, visual_tokens=encode_frames(model, [shown.frames]))


@Mode
def test_greedy_text_is_what_generate_writes(
    plain: PreTrainedModel,
    ours: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mode: Positions,
) -> None:
    family = backbone_of(ours)
    if family is QWEN2_5_VL and mode == "depth":
        pytest.skip("the library knows no depth, see test_decoding")
    plain = deepcopy(plain)
    decide(plain, ours)
    shown = [visual(family, number, mode) for number in range(2)]
    for each, answer in zip(shown, write_reports(ours, tokenizer, shown, mode, 12), strict=True):
        ids = torch.tensor(encode_prompt(tokenizer, each.grid_thw, markers=each.markers))
        written = plain.generate(
            **asked(plain, ids, each),
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=specials(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(ids) :].tolist()
        ending = [tokenizer.eos_token_id] if answer.finished else []
        assert written == [*answer.token_ids, *ending]
        assert len(set(written)) > 2


@torch.no_grad()
def test_contrast_is_its_formula_step_by_step(
    plain: PreTrainedModel, ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Volumes and scans of two sizes, questions of two lengths, against whole texts each time."""
    family, plain = backbone_of(ours), deepcopy(plain)
    decide(plain, ours)
    others = [visual(family, number, "index") for number in range(2)]
    shown = [
        replace(each, frames=255 - each.frames, cue=cue)
        for each, cue in zip(others, ((), ("Emphysema", "Lung nodule")), strict=True)
        if each.frames is not None
    ]
    knobs = GenerateConfig(contrast="others", num_negatives=2, contrast_weight=2, plausibility=0.1)
    contrast = prefill_contrast(ours, tokenizer, others, "index", knobs)
    written = write_reports(ours, tokenizer, shown, "index", 6, contrast=contrast)
    assert written != write_reports(ours, tokenizer, shown, "index", 6)

    def follows(scan: Visual, text: Sequence[int], cue: tuple[str, ...] | None) -> Tensor:
        ids = encode_prompt(tokenizer, scan.grid_thw, cue, scan.markers)
        given = asked(plain, torch.tensor([*ids, *text]), scan)
        log_probs: Tensor = plain(**given).logits[0, -1].log_softmax(-1)
        return log_probs

    for scan, answer in zip(shown, written, strict=True):
        for step, token in enumerate(answer.token_ids):
            so_far = answer.token_ids[:step]
            own = follows(scan, so_far, scan.cue)
            other = torch.stack([follows(each, so_far, scan.cue) for each in others]).mean(0)
            likely = own.index_fill(0, torch.tensor(specials(tokenizer)), -torch.inf).exp()
            score = (3 * own - 2 * other).masked_fill(likely < 0.1 * likely.max(), -torch.inf)
            assert int(score.argmax()) == token
            assert float(own[token]) == pytest.approx(answer.token_log_probs[step], abs=1e-4)


@torch.no_grad()
def test_evidence_asks_for_the_same_probabilities(
    ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """With all pairs there they are the losses; without one, others."""
    each = samples(backbone_of(ours), tokenizer, "depth")[1]
    forced = behind(ours, tokenizer, each)
    scores = log_probs(ours, forced, leave_one_out(forced.num_pairs))
    losses = answer_losses(ours, collate_samples([each], pad_id=0), "depth").values
    torch.testing.assert_close(-scores[0], losses, atol=1e-5, rtol=1e-5)
    assert (scores[1:] - scores[0]).abs().amax(1).min() > 1e-3


def behind(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, each: Sample
) -> ForcedReport:
    shown = _stored(model, each.visual)
    assert shown.visual_tokens is not None
    start = int((each.labels != -100).nonzero()[0])
    pairs = pair_of_tokens(tokenizer, shown.grid_thw, markers=shown.markers)
    pair_of = torch.tensor(pairs + [-1] * (len(each.input_ids) - start))
    place = places(model, each.input_ids, shown, "depth")
    return ForcedReport(each.input_ids, start, pair_of, shown.visual_tokens, shown.grid_thw, place)


@torch.no_grad()
def test_a_pair_left_out_leaves_nothing_of_its_depth_in_words(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Against the prompt of a scan that never had it; markers differ in length."""
    model = tiny_of(QWEN3_VL, tokenizer)
    each = samples(QWEN3_VL, tokenizer, "depth")[1]
    forced, shown = behind(model, tokenizer, each), each.visual
    assert shown.frames is not None
    assert shown.markers is not None
    sets = [frozenset({0, 1, 2}), frozenset({1, 2}), frozenset({0, 2}), frozenset({0, 1})]
    sets += [frozenset({1}), frozenset({2})]
    for kept, found in zip(sets, log_probs(model, forced, sets), strict=True):
        slices = [number for pair in sorted(kept) for number in (2 * pair, 2 * pair + 1)]
        less = Visual(
            (len(kept), *shown.grid_thw[1:]),
            tuple(shown.position_mm[pair] for pair in sorted(kept)),
            shown.frames[slices],
            markers=tuple(shown.markers[pair] for pair in sorted(kept)),
        )
        alone = collate_samples([sample(tokenizer, less, ANSWERS[1])], pad_id=0)
        expected = -answer_losses(model, alone, "depth").values
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    nothing = log_probs(model, forced, [frozenset()])
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize("part", ["language", "tower"])
def test_adapters_hit_their_side_alone_and_all_of_it(ours: PreTrainedModel, part: Any) -> None:  # noqa: ANN401
    inside = ours.model.language_model.layers if part == "language" else ours.model.visual.blocks
    gates = ("in_proj_a", "in_proj_b")  # of a recurrent layer: one output a head
    count = sum(not name.endswith(gates) for name in linears(inside))
    add_adapters(ours, r=2, alpha=4, part=part)
    learning = [name for name, weight in ours.named_parameters() if weight.requires_grad]
    where = ".language_model." if part == "language" else ".visual.blocks."
    assert all(where in name and ".lora_" in name for name in learning)
    assert len(learning) == 2 * count


def test_an_export_loads_in_plain_transformers(
    ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer = deepcopy(tokenizer)
    tokenizer.chat_template += "{%- if enable_thinking -%}{{- '<think>' -}}{%- endif -%}"
    add_adapters(ours, r=2, alpha=4)
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    save_model(tmp_path / "best", ours, tokenizer)
    recipe = Recipe.model_validate({"model": {"dtype": "float32", "tuning": "lora"}})
    publish(tmp_path / "best", tmp_path / "out", "merged", recipe)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    told = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(
        prompt_messages(), tokenize=False, enable_thinking=True
    )
    assert "<think>" not in told  # as it was trained, whatever a server asks
    loaded, _ = load_model(tmp_path / "best")
    each = samples(backbone_of(ours), tokenizer, "index")[0]
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert (VIDEO_BLOCK in template) == (each.visual.markers is None)  # its processor puts blocks
    size = json.loads((tmp_path / "out" / "video_preprocessor_config.json").read_text())["size"]
    edges = size["shortest_edge"], size["longest_edge"]
    for slices, side in ((2, 64), (64, 512)):  # no frame is scaled
        assert smart_resize(slices, side, side, 2, 32, *edges) == (side, side)
    _, exported = load_model(tmp_path / "out")
    assert torch.equal(sample(exported, each.visual, ANSWERS[0]).input_ids, each.input_ids)
    with torch.no_grad():
        expected, ours_again, published = (
            model(**asked(model, each.input_ids, each.visual)).logits
            for model in (ours, loaded, again)
        )
    torch.testing.assert_close(ours_again, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(published, expected, atol=1e-3, rtol=1e-3)


def test_depth_is_the_timestamps_that_the_library_writes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    processor = object.__new__(Qwen3VLProcessor)  # whole, it wants torchvision
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    processor.video_token = "<|video_pad|>"
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    shown = visual(QWEN3_VL, 1, "depth")
    slices_mm = [0.0, 0.0, 31.7, 31.7, 63.4, 63.4]  # both of a pair where the pair is
    for mode, fps, indices in (("depth", 1, slices_mm), ("index", 2, list(range(6)))):
        inputs = {
            "video_grid_thw": torch.tensor([shown.grid_thw]),
            "video_metadata": [VideoMetadata(total_num_frames=6, fps=fps, frames_indices=indices)],
        }
        text = processor.replace_video_token(inputs, 0)
        prompt = tokenizer.apply_chat_template(
            prompt_messages(), tokenize=False, add_generation_prompt=True
        ).replace("<|vision_start|><|video_pad|><|vision_end|>", text)
        marked = with_markers(QWEN3_VL, shown, mode)  # type: ignore[arg-type]
        ids = encode_prompt(tokenizer, marked.grid_thw, markers=marked.markers)
        assert ids == tokenizer(prompt).input_ids


@pytest.mark.parametrize("markers", [None, ("<0.0 seconds>",)])
def test_slices_without_their_timestamps_are_refused(
    tokenizer: PreTrainedTokenizerBase, markers: tuple[str, ...] | None
) -> None:
    model = tiny_of(QWEN3_VL, tokenizer)
    shown = replace(visual(QWEN3_VL, 0, "depth"), markers=markers)
    batch: Batch = collate_samples([sample(tokenizer, shown, ANSWERS[0])], pad_id=0)
    with refusal(
        "E_POSITIONS", r"must hold 2 runs of 24 <\|video_pad\|> tokens, .* runs of \[48\]"
    ):
        answer_losses(model, batch, "depth")
