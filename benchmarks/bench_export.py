"""Exports a model and its adapters, then asks two releases of transformers for its logits.

``make bench NAME=export``: the project's own release, and 4.57 in an environment that has all other
packages from the project's. Each reads in a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

LARGEST_DIFFERENCE = 1e-3
"""Of logits between −50 and 50: float32 sums in another order."""


def write(folder: Path) -> None:
    # the other release cannot import these
    from ctscribe.base.recipe import Recipe
    from ctscribe.learn.model.adapters import add_adapters
    from ctscribe.learn.model.checkpoint import save_model
    from ctscribe.learn.model.presets import build_config, train_tokenizer
    from ctscribe.learn.model.publish import publish, publish_merged
    from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
    from ctscribe.learn.model.tower import patchify
    from ctscribe.text.prompt import encode_example

    report = "Findings: a 12 mm nodule in the right upper lobe.\nImpression: nodule."
    tokenizer = train_tokenizer([report] * 3, vocab_size=400)
    torch.manual_seed(0)
    config = build_config("tiny", tokenizer)
    config.text_config.initializer_range = config.vision_config.initializer_range = 0.2
    qwen = Qwen2_5_VLForConditionalGeneration(config).eval()
    recipe = Recipe.model_validate({"model": {"dtype": "float32", "tuning": "lora"}})
    save_model(folder / "base-best", qwen, tokenizer)
    publish_merged(folder / "base-best", folder / "base", "float32", {})
    add_adapters(qwen, r=4, alpha=8)
    for name, weight in qwen.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    save_model(folder / "best", qwen, tokenizer)
    publish(folder / "best", folder / "merged", "merged", recipe)
    publish(folder / "best", folder / "adapters", "adapters", recipe, base=str(folder / "base"))
    patches, grid = patchify(torch.randint(0, 256, (4, 112, 140, 3)).to(torch.uint8), QWEN2_5_VL)
    ids, _ = encode_example(tokenizer, report, (int(grid[0]), int(grid[1]), int(grid[2])))
    asked = {"input_ids": torch.tensor([ids]), "patches": patches, "grid": grid[None]}
    torch.save({**asked, "logits": logits_of(qwen, asked)}, folder / "asked.pt")
    text = f"<|im_start|>{report}<|video_pad|><|im_end|>"
    (folder / "text.json").write_text(json.dumps({"text": text, "ids": tokenizer.encode(text)}))


def logits_of(model: Any, asked: dict[str, torch.Tensor]) -> torch.Tensor:
    ids = asked["input_ids"]
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": asked["patches"],
        "video_grid_thw": asked["grid"],
        "second_per_grid_ts": torch.tensor([1.0]),
    }
    if int(transformers.__version__.split(".")[0]) >= 5:
        given["mm_token_type_ids"] = (ids == model.config.video_token_id).int() * 2
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**given).logits
    return logits


def read(folder: Path) -> dict[str, Any]:
    asked = torch.load(folder / "asked.pt", weights_only=True)
    text = json.loads((folder / "text.json").read_text())
    encoded = AutoTokenizer.from_pretrained(folder / "merged").encode(text["text"])
    merged, loading = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder / "merged", output_loading_info=True
    )
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "base")
    models = {"merged": merged, "adapters": PeftModel.from_pretrained(base, folder / "adapters")}
    return {
        "transformers": transformers.__version__,
        "keys_that_do_not_fit": sum(len(keys) for keys in loading.values()),
        "same_token_ids": encoded == text["ids"],
        "largest_logit": float(asked["logits"].abs().max()),
        **{
            f"largest_difference_{name}": float(
                (logits_of(model, asked) - asked["logits"]).abs().max()
            )
            for name, model in models.items()
        },
    }


def ask(python: str, folder: str) -> dict[str, Any]:
    """What one environment's release reads."""
    command = [python, "-m", "benchmarks.bench_export", "read", folder]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def main() -> None:
    if sys.argv[1] == "read":
        print(json.dumps(read(Path(sys.argv[2]))))
        return
    from benchmarks.harness import record  # the other release cannot import this

    with TemporaryDirectory() as folder:
        write(Path(folder))
        pythons = sys.executable, str(Path(sys.argv[1]) / "bin" / "python")
        releases = [ask(python, folder) for python in pythons]
    record("export", {"releases": releases})
    for found in releases:
        worst = max(found["largest_difference_merged"], found["largest_difference_adapters"])
        alike = found["same_token_ids"] and worst <= LARGEST_DIFFERENCE
        if found["keys_that_do_not_fit"] or not alike:
            sys.exit(f"the export does not load alike in transformers {found['transformers']}")


if __name__ == "__main__":
    main()
