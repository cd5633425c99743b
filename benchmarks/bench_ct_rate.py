"""What each stage of docs/ct_rate.md's commands takes on CT-RATE: disk, time and memory.

``make bench NAME=ct_rate`` computes the table and puts it into that page. Nothing is measured: the
volume, the reports and the machine are those below, and the page says them beside the table.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from transformers import PreTrainedConfig

from benchmarks.costs import (
    Sample,
    adapter_weights,
    head_width,
    kept_bytes,
    language_flops,
    language_weights,
    pair_flops,
    published_config,
    tower_flops,
    weights,
)
from benchmarks.harness import ROOT, table
from ctscribe.base.files import read_text, write_text
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.tables import format_csv
from ctscribe.data.doctor import Diagnosis, examine
from ctscribe.learn.model.presets import PRESETS
from ctscribe.measure.card_views import FROM_VOLUMES, VIEWS

PAGE = ROOT / "docs" / "ct_rate.md"
RECIPE = "qwen2.5-vl-7b"
BEGIN, END = "<!-- costs, by make bench NAME=ct_rate -->\n", "<!-- end of costs -->"

TRAIN_SCANS, TEST_SCANS = 24_128, 1_564
SHAPE, SPACING_MM = (512, 512, 339), (368 / 512, 368 / 512, 1.0)
"""The median field of view and extent of the validation patients."""
FIELD_MM = SHAPE[0] * SPACING_MM[0]
PROMPT_TOKENS, ANSWER_TOKENS, LONGEST_OF_A_BATCH = 50, 400, 900
"""The mean of 800 reports; the longest of 32, to which a batch of them is written."""
MARKER_TOKENS = 10
"""Of a slice pair that stands in a vision block of its own, behind its depth."""

CORES, GPUS = 16, 2
_GPUS = f"{GPUS} GPUs"
FLOPS_PER_S, BYTES_PER_S = 0.4 * 312e12, 0.5 * 2.0e12
"""Of an A100 of 80 GB: what is reached of its matrix products, and of its memory in writing."""
BATCH, TRIES, CHECKPOINTS = 32, 11, 2
"""Reports written at once, the ways of writing that `tune` tries, validations of an epoch."""
EVALUATE_S, EVALUATE_GB, PAIRS_S = 60.0, 2.0, 60.0
"""At most, by ``results/scale.json``."""


def needs_of(recipe: Recipe) -> Diagnosis:
    """The doctor's answer for one volume of CT-RATE; its voxels are not read, so it has none."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape(SHAPE)
        header.set_sform(np.diag([*SPACING_MM, 1.0]), code="scanner")
        with (folder / "scan.nii").open("wb") as file:
            header["magic"], header["vox_offset"] = b"n+1", 352
            file.write(header.binaryblock)
            file.truncate(352 + 2 * int(np.prod(SHAPE)))
        columns = ("volume", "patient", "scan", "report")
        listed = format_csv([columns, ("scan.nii", "P1", "S1", "Clear.")])
        (folder / "scans.csv").write_text(listed, encoding="utf-8")
        return examine(folder / "scans.csv", recipe.volume, recipe.slices, recipe.model)


Row = tuple[str, str, str, str, str, str]
"""Stage, what works on it, disk, time, memory of each GPU and of the host."""


def rows_of(recipe: Recipe) -> list[Row]:
    """The stages in their order."""
    config, sample = published_config(recipe.model.preset), sample_of(recipe)
    validation = round(recipe.splits.validation_fraction * TRAIN_SCANS)
    found, forward = needs_of(recipe), language_flops(config, sample, recipe.model.lora_r)
    return [
        *_before(config, sample, found),
        _training(config, sample, recipe.model.lora_r, validation),
        *_writing(config, sample, forward, validation),
    ]


def _before(config: PreTrainedConfig, sample: Sample, found: Diagnosis) -> list[Row]:
    """Frames, features, pairs."""
    scans, need, model_gb = TRAIN_SCANS + TEST_SCANS, found.need["slices"], _model_gb(config)
    frames_gb, features_gb = (n * scans / 1e9 for n in (need.disk_bytes, found.features_bytes))
    prepare_s = scans * need.cpu_hours * 3600 / CORES
    tower_s = scans * tower_flops(config, sample) / FLOPS_PER_S / GPUS
    host_gb = CORES * need.memory_bytes / 1e9
    return [
        ("`prepare`", f"{CORES} cores", *_told(frames_gb, prepare_s, None, host_gb)),
        ("`features`", _GPUS, *_told(features_gb, tower_s, model_gb + 1, GPUS * model_gb)),
        ("`pairs`", "1 core", *_told(0, PAIRS_S, None, 1)),
    ]


def _training(config: PreTrainedConfig, sample: Sample, rank: int, validation: int) -> Row:
    """An epoch with its validations; the best weights lie twice on disk while they are replaced."""
    adapters, model_gb = adapter_weights(config, rank), _model_gb(config)
    work = (TRAIN_SCANS - validation) * pair_flops(config, sample, rank)
    work += CHECKPOINTS * validation * 2 * language_flops(config, sample, rank)
    learning_gb = (16 * adapters + kept_bytes(config, rank) * sample.tokens) / 1e9
    disk_gb = 2 * (model_gb + 4 * adapters / 1e9) + CHECKPOINTS * 12 * adapters / 1e9
    told = _told(disk_gb, work / FLOPS_PER_S / GPUS, model_gb + learning_gb, GPUS * model_gb)
    return ("`train`", _GPUS, *told)


def _writing(config: PreTrainedConfig, sample: Sample, forward: int, validation: int) -> list[Row]:
    """What comes of a run: every report is held against the mean volume's, in the same batch."""
    text, model_gb = config.text_config, _model_gb(config)
    keys_and_values = 2 * text.num_key_value_heads * head_width(config)
    a_token = 2 * text.num_hidden_layers * keys_and_values
    held = 2 * BATCH * (sample.tokens + LONGEST_OF_A_BATCH) * a_token
    a_step_s = (2 * language_weights(config) + held) / BYTES_PER_S
    report_s = LONGEST_OF_A_BATCH / BATCH * a_step_s + forward / FLOPS_PER_S
    views = len(VIEWS) - len(FROM_VOLUMES)
    memory = model_gb + held / 1e9, model_gb
    on_each = memory[0], GPUS * model_gb
    return [
        ("`tune`", _GPUS, *_told(0, TRIES * validation * report_s / GPUS, *on_each)),
        ("`generate`", _GPUS, *_told(0, TEST_SCANS * report_s / GPUS, *on_each)),
        ("`evaluate`", "1 core", *_told(0, EVALUATE_S, None, EVALUATE_GB)),
        (
            *("`card`", "1 GPU"),
            *_told(0, views * TEST_SCANS * (report_s + forward / FLOPS_PER_S), *memory),
        ),
    ]


def _model_gb(config: PreTrainedConfig) -> float:
    return 2 * weights(config) / 1e9


def _told(
    disk_gb: float, seconds: float, gpu_gb: float | None, host_gb: float
) -> tuple[str, str, str, str]:
    disk = f"{disk_gb:.0f}" if disk_gb >= 1 else "under 1"
    return disk, _time(seconds), "–" if gpu_gb is None else f"{gpu_gb:.0f}", f"{host_gb:.0f}"


def sample_of(recipe: Recipe, field_mm: float = FIELD_MM) -> Sample:
    """A report of mean length with a scan of this field of view, that of `needs_of`."""
    pairs = recipe.slices.num_slices // 2
    side = -(-int(field_mm / recipe.volume.spacing_mm[0]) // recipe.slices.token_side_px)
    markers = PRESETS[recipe.model.preset].backbone.markers((0.0,) * pairs, "depth") or ()
    prompt_tokens = PROMPT_TOKENS + MARKER_TOKENS * len(markers)
    return Sample(pairs, side, side, prompt_tokens, ANSWER_TOKENS)


def _time(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def costs(rows: Sequence[Sequence[str]]) -> str:
    """The table, in gigabytes of 10⁹ bytes."""
    memory = ("GB of each GPU", "GB of the host")
    return table(("stage", "works on", "GB of disk", "time", *memory), rows)


def page_with(told: str) -> str:
    """The page with another table."""
    head, _, rest = read_text(PAGE).partition(BEGIN)
    return f"{head}{BEGIN}\n{told}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    told = costs(rows_of(read_recipe(RECIPE)))
    write_text(PAGE, page_with(told))
    print(told)


if __name__ == "__main__":
    main()
