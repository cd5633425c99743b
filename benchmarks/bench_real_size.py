"""A model at its true dimensions, once: seconds, memory and operations of each part of a run.

``make bench NAME=real_size`` builds Qwen2.5-VL-3B with random weights in bfloat16, or the preset of
ARGS="--preset ...", and takes one phantom through tower, pair, writing, export and reading back, on
a GPU where there is one. Each part runs in a process of its own and leaves its numbers and files in
``runs/real_size``, so that an interrupted bench goes on where it stopped; 25 GB of disk. More ARGS:
``--layers 2`` for a try that records nothing, ``--page`` to make the page alone.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
)

from benchmarks.bench_train import UNCOUNTED
from benchmarks.costs import (
    VOCABULARIES,
    Sample,
    published_config,
    tower_flops,
)
from benchmarks.harness import RESULTS, ROOT, record, write_page
from benchmarks.page_real_size import RECOMPUTED, told
from benchmarks.timing import alone, measured, resident_mb
from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import GenerateConfig, Recipe, read_recipe
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.backbone import MERGE, Positions
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.contrast import prefill_contrast, read_volumes, write_volumes
from ctscribe.learn.model.decoding import write_reports
from ctscribe.learn.model.families import backbone_of, with_markers
from ctscribe.learn.model.presets import train_tokenizer
from ctscribe.learn.model.publish import publish
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import PairDataset, Visual, slice_pair_positions
from ctscribe.learn.train.arguments import training_arguments
from ctscribe.learn.train.scorer import learning_rates
from ctscribe.learn.train.stage import make_scorer
from ctscribe.learn.train.trainer import PairTrainer
from ctscribe.phantom.dataset import write_dataset
from ctscribe.text.prompt import QUESTION, SYSTEM

FOLDER = ROOT / "runs" / "real_size"
NUM_TOKENS = 16
MOST_GB = {"qwen2.5-vl-3b": 22.0, "qwen3-vl-4b": 22.0, "qwen3.5-4b": 22.0}
"""Of host memory; a part that takes more fails."""
PHANTOM = ("phantom.num_train_patients=2", "phantom.num_valid_patients=0", "phantom.matrix_px=192")
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""Of the parts' processes, for glibc: blocks above a MB go back to the system when they are freed.
Otherwise they come from a heap whose holes hold a fifth of a step's memory."""
CHANGES = (
    "train.gradient_accumulation_steps=1",
    "objective.max_loss=1000",  # random weights lie beyond any usual cap
    *("train.pairs_per_device=1", "pairs.mutual=false"),  # one pair, whatever the recipe takes
)
Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Numbers = dict[str, Any]


def recipe_of(preset: str) -> Recipe:
    again = f"train.gradient_checkpointing={RECOMPUTED[preset]}"
    return read_recipe(preset, (*PHANTOM, *CHANGES, again))


def build(folder: Path, preset: str, layers: int | None) -> Numbers:
    """Two phantoms on the recipe's grid, and a checkpoint of random weights."""
    recipe = recipe_of(preset)
    write_dataset(folder / "data", recipe.phantom)
    prepare(folder / "data", folder / "prepared", recipe.volume, recipe.slices, keep="slices")
    reports = [study.findings for study in Prepared(folder / "prepared").studies]
    tokenizer = train_tokenizer([SYSTEM, QUESTION, *reports] * 3, vocab_size=1500)
    config = published_config(preset, tokenizer)
    if layers is not None:
        cut(config, layers)
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)

    def make() -> None:
        qwen = backbone_of(config).model(config)
        save_model(folder / "start", qwen, tokenizer)

    return counted(make)


def cut(config: PreTrainedConfig, layers: int) -> None:
    """The same model with its last layers alone, to try the bench."""
    text, tower = config.text_config, config.vision_config
    text.num_hidden_layers = tower.depth = layers
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = kinds[-layers:]
    for special in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        if hasattr(tower, special):
            setattr(tower, special, [layers - 1])


def see(folder: Path, preset: str) -> Numbers:
    """The tower on one scan; the other patient's features are the same in another order."""
    qwen, _ = load(folder / "start")
    prepared = Prepared(folder / "prepared")
    study = prepared.studies[0]
    frames = torch.from_numpy(np.array(prepared.frames(study)))
    found: list[torch.Tensor] = []

    def encode() -> None:
        with torch.inference_mode():
            found.append(encode_frames(qwen, [frames]).cpu())

    numbers = counted(encode)
    rows, columns = (side // backbone_of(qwen).patch_px for side in frames.shape[1:3])
    pairs, places = len(frames) // 2, slice_pair_positions(study.position_mm)
    own = Visual((pairs, rows, columns), places, None, found[0], "own")
    turned = found[0].reshape(pairs, -1, found[0].shape[-1]).flip(0).flatten(0, 1)
    other = replace(own, visual_tokens=turned, patient_id="other")
    write_volumes(folder / "seen.safetensors", [own, other], {})
    sample = Sample(pairs, rows // MERGE, columns // MERGE, 0, 0)
    return {**numbers, "computed_flops": tower_flops(qwen.config, sample)}


def learn(folder: Path, preset: str) -> Numbers:
    """One update of one pair by the project's trainer, both branches with a backward pass."""
    recipe = recipe_of(preset)
    qwen, tokenizer = load(folder / "start")
    dataset = pair_of(folder, qwen, tokenizer, recipe.model.positions)
    trainer = PairTrainer(
        objective=recipe.objective,
        rates=learning_rates(recipe.train),
        model=make_scorer(qwen, recipe, dataset.longest()),
        args=training_arguments(folder / "run", recipe),
        train_dataset=dataset,
        data_collator=partial(collate_pairs, pad_id=int(tokenizer.pad_token_id)),
    )
    trainer.remove_callback(PrinterCallback)
    numbers = counted(trainer.train)
    save_model(folder / "best", qwen.cpu(), tokenizer)
    sample = sample_of(dataset)
    return {
        **numbers,
        "tokens": sample.tokens,
        "visual_tokens": sample.visual_tokens,
        "answer_tokens": sample.answer_tokens,
    }


def seen(folder: Path, qwen: PreTrainedModel, positions: Positions) -> list[Visual]:
    """The two volumes with their features, as the model reads them."""
    volumes = read_volumes(folder / "seen.safetensors")
    return [with_markers(backbone_of(qwen), volume, positions) for volume in volumes]


def pair_of(
    folder: Path,
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    positions: Positions,
) -> PairDataset:
    """One study with its own features and the other's."""
    studies = Prepared(folder / "prepared").by_name
    own, other = sorted(studies)[:2]
    shown = dict(zip((own, other), seen(folder, qwen, positions), strict=True))

    def visual(study: StudyRow, noise_seed: int | None = None) -> Visual:
        return shown[study.volume_name]

    rows = [
        PairRow(study=own, role="positive", volume=own),
        PairRow(study=own, role="negative", volume=other, disputed=()),
    ]
    return PairDataset(studies, rows, tokenizer, visual, 10**6)


def sample_of(dataset: PairDataset) -> Sample:
    read = dataset[0].positive
    pairs, rows, columns = read.visual.grid_thw
    answers = int((read.labels >= 0).sum())
    shown = Sample(pairs, rows // MERGE, columns // MERGE, 0, answers)
    return replace(shown, prompt_tokens=len(read.labels) - shown.tokens)


def write(folder: Path, preset: str) -> Numbers:
    """A report's first tokens, each held against the other volume."""
    recipe = recipe_of(preset)
    qwen, tokenizer = load(folder / "best")
    knobs, positions = GenerateConfig(contrast="mean"), recipe.model.positions
    own, other = seen(folder, qwen, positions)

    def both() -> None:
        with torch.inference_mode():
            against = prefill_contrast(qwen, tokenizer, [other], positions, knobs)
            write_reports(qwen, tokenizer, [own], positions, NUM_TOKENS, contrast=against)

    return counted(both)


def export(folder: Path, preset: str) -> Numbers:
    """Adapters merged into whole weights, with their cross entropy before and after."""
    shutil.rmtree(folder / "served", ignore_errors=True)
    return counted(lambda: publish(folder / "best", folder / "served", "merged", recipe_of(preset)))


def read_back(folder: Path, preset: str) -> Numbers:
    """What was exported, in the library's own class, asked for its next token."""
    ids = torch.tensor([[1, 2, 3]])

    def ask() -> None:
        qwen, loading = AutoModelForImageTextToText.from_pretrained(
            folder / "served", dtype="bfloat16", output_loading_info=True
        )
        with torch.inference_mode():
            logits = qwen(input_ids=ids).logits
        if any(loading.values()) or not bool(torch.isfinite(logits).all()):
            raise SystemExit("What was exported must load whole, but does not.")

    return counted(ask)


def load(folder: Path) -> Model:
    qwen, tokenizer = load_model(folder, "bfloat16")
    return qwen.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


class _NoModules(ModuleTracker):
    """Tells no modules apart, since that keeps every graph, and its memory, alive."""

    def __enter__(self) -> "_NoModules":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def counted(call: Callable[[], Any]) -> Numbers:
    """Seconds, operations, and the most memory that the process, or the GPU, held meanwhile."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def count() -> int:
        counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
        counter.mod_tracker = _NoModules()
        with counter:
            call()
        if on_gpu:
            torch.cuda.synchronize()
        return int(counter.get_total_flops())

    flops, cost = measured(count)
    gpu_gb = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None
    seconds = {"wall_s": round(cost.wall_s, 1), "cpu_s": round(cost.cpu_s, 1)}
    return {**seconds, "flops": flops, "peak_gb": resident_mb("VmHWM") / 1e3, "gpu_gb": gpu_gb}


PARTS: dict[str, Callable[..., Numbers]] = {
    "build": build,
    "features": see,
    "pair": learn,
    "write": write,
    "export": export,
    "read back": read_back,
}


def run(folder: Path, preset: str, layers: int | None) -> Numbers:
    """Every part that has not ended; each one's numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    found: Numbers = {}
    for name, part in PARTS.items():
        path = folder / f"{name.replace(' ', '_')}.json"
        if not path.exists():
            asked = (folder, preset, layers) if part is build else (folder, preset)
            numbers = alone(part, *asked)
            if numbers["peak_gb"] > (most_gb := MOST_GB.get(preset, float("inf"))):
                raise SystemExit(f"{name} must stay under {most_gb} GB, but took {numbers}")
            write_json(path, numbers)
        found[name] = read_json(path)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="qwen2.5-vl-3b", choices=list(VOCABULARIES))
    parser.add_argument("--layers", type=int)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    os.environ |= ALLOCATOR
    if not asked.page:
        folder = FOLDER / f"{asked.preset}-{asked.layers or 'all'}"
        parts = run(folder, asked.preset, asked.layers)
        shutil.rmtree(folder)
        if asked.layers is not None:
            return
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        threads = os.environ.get("OMP_NUM_THREADS")
        about = {"preset": asked.preset, "device": device, "threads": threads}
        name = f"real_size/{asked.preset}"
        record(name, {**about, "load_average": os.getloadavg(), "parts": parts})
    write_page("real_size", told(RESULTS / "real_size"))


if __name__ == "__main__":
    main()
