import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json
from ctscribe.learn.model import checkpoint
from ctscribe.learn.model.adapters import add_adapters, merge_adapters
from ctscribe.learn.model.checkpoint import is_complete, load_model, save_model
from ctscribe.learn.model.packing import trim_last_layer
from ctscribe.learn.model.qwen import answer_losses
from tests.damage import HOSTILE, flip_bit, full_disk
from tests.learn.model.batches import make_batch, random_frames
from tests.refusals import refusal

Losses = Callable[[Qwen2_5_VLForConditionalGeneration], torch.Tensor]


@pytest.fixture(scope="module")
def saved(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("model") / "best"
    save_model(folder, qwen, tokenizer, {"findings_head.safetensors": {"bias": torch.ones(3)}})
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "best")
    return tmp_path / "best"


@pytest.fixture(scope="module")
def losses(tokenizer: PreTrainedTokenizerBase) -> Losses:
    batch = make_batch(tokenizer, ["Findings: clear."], [random_frames(2, 56, 84)])
    return lambda qwen: answer_losses(qwen, batch, "depth").values.detach()


def test_what_is_saved_is_what_is_read(
    qwen: Qwen2_5_VLForConditionalGeneration, saved: Path, losses: Losses
) -> None:
    again, tokenizer = load_model(saved)
    in_memory = deepcopy(qwen)
    trim_last_layer(
        in_memory
    )  # as load_model does, so that both multiply matrices of the same shapes
    assert torch.equal(losses(in_memory), losses(again))
    assert tokenizer.eos_token == "<|im_end|>"
    assert load_file(saved / "findings_head.safetensors")["bias"].tolist() == [1, 1, 1]
    assert load_model(saved, "bfloat16")[0].dtype is torch.bfloat16


def test_the_layout_is_the_hubs_and_older_releases_find_their_fields(saved: Path) -> None:
    keys = load_file(saved / "model.safetensors").keys()
    assert "visual.patch_embed.proj.weight" in keys
    assert "model.layers.0.self_attn.q_proj.weight" in keys
    text = json.loads((saved / "config.json").read_text())["text_config"]
    assert text["rope_scaling"] == {"type": "mrope", "mrope_section": [4, 6, 6]}
    assert text["rope_theta"] == 1e6


def learn_a_little(adapted: Qwen2_5_VLForConditionalGeneration, std: float) -> None:
    """As an update does, in float32, and small beside a weight."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.float()
            if "lora_B" in name:
                parameter.normal_(std=std)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_come_back_as_they_were_trained(
    saved: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    losses: Losses,
    dtype: str,
) -> None:
    """A sum rounded to bfloat16 would keep half of an update; the weights below are kept apart."""
    adapted, _ = load_model(saved, dtype)
    below = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    add_adapters(adapted, r=4, alpha=8)
    add_adapters(adapted, r=2, alpha=2, part="tower")
    learn_a_little(adapted, std=1e-3)
    save_model(tmp_path / "best", adapted, tokenizer)
    again, _ = load_model(tmp_path / "best", dtype)
    learned = {n: w for n, w in adapted.state_dict().items() if ".lora_" in n}
    assert len(learned) == 2 * (7 * 3 + 5 * 4)
    for name, weight in learned.items():
        assert torch.equal(again.state_dict()[name], weight), name
        assert again.state_dict()[name].dtype == torch.float32
    assert torch.equal(losses(again), losses(adapted))
    stored = load_file(tmp_path / "best" / "model.safetensors")
    place = "layers.0.self_attn.q_proj.weight"
    assert torch.equal(stored[f"model.{place}"], below[f"model.language_model.{place}"])
    save_model(tmp_path / "again", again, tokenizer)
    for file in ("model.safetensors", "adapters.safetensors", "adapters.json"):
        written = (tmp_path / "again" / file).read_bytes()
        assert written == (tmp_path / "best" / file).read_bytes(), file


@pytest.fixture
def adapted_folder(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> Path:
    """Weights with adapters beside them."""
    adapted = deepcopy(qwen)
    add_adapters(adapted, r=4, alpha=8)
    save_model(tmp_path / "best", adapted, tokenizer)
    return tmp_path / "best"


def test_adapters_that_do_not_fit_are_refused(adapted_folder: Path) -> None:
    folder = adapted_folder
    (folder / "checkpoint.json").unlink()
    tensors = load_file(folder / "adapters.safetensors")
    save_file(dict([*tensors.items()][1:]), folder / "adapters.safetensors")
    with refusal("E_WEIGHTS", r"adapters\.safetensors must fit .* 1 tensors do not, such as base_"):
        load_model(folder)


def test_a_later_stage_goes_on_with_earlier_adapters_of_the_same_size(
    qwen: Qwen2_5_VLForConditionalGeneration,
) -> None:
    adapted = deepcopy(qwen)
    add_adapters(adapted, r=4, alpha=8, part="tower")
    add_adapters(adapted, r=4, alpha=8)
    learn_a_little(adapted, std=0.1)
    before = {name: weight.clone() for name, weight in adapted.named_parameters()}
    add_adapters(adapted, r=4, alpha=8)
    after = dict(adapted.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    learning = {name for name, weight in after.items() if weight.requires_grad}
    assert learning == {n for n in after if ".lora_" in n and ".language_model." in n}
    with refusal("E_RECIPE", "those of the adapters to go on with, 4 and 8, but are 2 and 8"):
        add_adapters(adapted, r=2, alpha=8)


def test_adapters_that_an_earlier_version_merged_are_not_put_on_twice(
    adapted_folder: Path,
) -> None:
    folder = adapted_folder
    settings = json.loads((folder / "adapters.json").read_text())
    del settings["merged_into_weights"]
    (folder / "adapters.json").write_text(json.dumps(settings))
    (folder / "checkpoint.json").unlink()
    again, _ = load_model(folder)
    assert type(again.model.language_model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_merged_adapters_are_part_of_the_weights(
    qwen: Qwen2_5_VLForConditionalGeneration, losses: Losses
) -> None:
    adapted = deepcopy(qwen)
    before = losses(adapted)
    add_adapters(adapted, r=4, alpha=8)
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * 7 * 3
    assert all("language_model" in name and "lora_" in name for name in trainable)
    assert torch.equal(losses(adapted), before)
    learn_a_little(adapted, std=0.1)
    learned = losses(adapted)
    assert not torch.allclose(learned, before)
    merge_adapters(adapted)
    torch.testing.assert_close(losses(adapted), learned, atol=1e-4, rtol=1e-4)
    assert type(adapted.model.language_model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert adapted.state_dict().keys() == qwen.state_dict().keys()


def test_an_interrupted_save_leaves_the_earlier_checkpoint(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_swap", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(copy, qwen, tokenizer)
    monkeypatch.undo()
    assert is_complete(copy)
    copy.rename(copy.with_name(".best.previous"))  # killed between the swap's two renames
    load_model(copy)
    save_model(copy, qwen, tokenizer)
    assert sorted(p.name for p in copy.parent.iterdir()) == ["best"]


def cut_short(folder: Path) -> None:
    (folder / "checkpoint.json").write_text('{"complete": false}')


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lacks_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def wrong_size(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlavaForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(config))


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "foreign", "sentence"),
    [
        (cut_short, False, "must be complete"),
        (truncate, False, "must be complete"),
        (truncate, True, "must hold Qwen2.5-VL.*weights"),
        (no_weights, True, "lacks one of them"),
        (lacks_a_tensor, True, "1 missing keys such as"),
        (wrong_size, True, "must hold"),
        (another_model, True, "but it is LlavaForConditionalGeneration"),
        (no_tokenizer, True, "must hold the tokenizer of its model"),
        (shutil.rmtree, False, "but there is none"),
    ],
)
def test_a_harmed_folder_is_refused_in_one_sentence(
    copy: Path, harm: Callable[[Path], None], foreign: bool, sentence: str
) -> None:
    if foreign:  # written by another program, which leaves no marker
        (copy / "checkpoint.json").unlink()
    harm(copy)
    with pytest.raises(CtscribeError, match=sentence) as caught:
        load_model(copy)
    assert caught.value.code == "E_WEIGHTS"
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("source", ["tiny", "nobody/nothing", "qwen2.5-vl-3b", "./absent", "a/b/c"])
def test_weights_that_cannot_be_had_are_one_sentence(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CtscribeError) as caught:
        load_model(source)
    assert caught.value.code == "E_WEIGHTS"
    assert len(caught.value.sentence) < 400


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "findings_head.safetensors", "config.json"]
)
def test_a_flipped_bit_in_any_file_is_refused(copy: Path, name: str) -> None:
    flip_bit(copy / name, 0.9)
    with refusal("E_WEIGHTS", f"{name} is not what was written"):
        load_model(copy)


def test_a_checkpoint_without_checksums_is_an_earlier_versions(copy: Path) -> None:
    write_json(copy / "checkpoint.json", {"complete": True, "bytes": {"config.json": 1}})
    with refusal("E_WEIGHTS", "an earlier version wrote it, .*without its checkpoint.json"):
        load_model(copy)
    (copy / "checkpoint.json").unlink()
    load_model(copy)


def configured(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (configured(quantization_config={"quant_method": "awq"}), r"quantised \(awq\)"),
        (configured(quantization_config={"quant_method": "gptq", "bits": 4}), "gptq"),
        (configured(quantization_config={"load_in_4bit": True}), "quantised"),
        (configured(quantization_config={"quant_method": "bitsandbytes"}), "bitsandbytes"),
        (configured(attn_implementation="flash_attention_2"), "FlashAttention2"),
        (configured(_attn_implementation="flash_attention_3"), "FlashAttention3"),
        (configured(attn_implementation="nonsense"), "nonsense"),
        (configured(text_config=None), "config.json asks for more than"),
        (configured(text_config={"num_hidden_layers": 10**9}), "config.json asks for more than"),
        (configured(vision_config=3), "must hold"),
        (configured(architectures=[None]), "must be a Qwen2.5-VL"),
    ],
)
def test_a_published_model_that_is_not_for_us_is_one_sentence(
    copy: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    (copy / "checkpoint.json").unlink()
    harm(copy)
    with refusal("E_WEIGHTS", sentence) as caught:
        load_model(copy)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_hostile_files_are_one_sentence(copy: Path, name: str, content: bytes) -> None:
    (copy / "checkpoint.json").unlink()
    (copy / name).write_bytes(content)
    with refusal("E_WEIGHTS") as caught:
        load_model(copy)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("num_bytes", [0, 1_000, 20_000, 1_000_000])
def test_on_a_full_disk_the_earlier_checkpoint_stays(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    copy: Path,
    num_bytes: int,
) -> None:
    with refusal("E_WRITE"), full_disk(num_bytes):
        save_model(copy, qwen, tokenizer)
    load_model(copy)
