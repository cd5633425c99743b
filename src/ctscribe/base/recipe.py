"""Every knob once, by section; a YAML file with `--set` overrides → a checked `Recipe`."""

import ast
import difflib
import os
import reprlib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import UNPARSABLE, brief, read_text
from ctscribe.base.plain_yaml import parse_yaml
from ctscribe.base.types import Projection, Strategy

Millimetres = Annotated[float, Field(gt=0, le=20)]
Fraction = Annotated[float, Field(ge=0, le=1)]
RadEvalMetric = Literal["green", "ratescore", "radgraph", "radfact_ct", "f1radbert_ct", "bertscore"]
_MOST_BYTES = 1 << 16
"""Of a recipe; one that says everything has a tenth."""


class Section(BaseModel):
    """A group of knobs; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomConfig(Section):
    """Synthetic chest CT."""

    num_train_patients: int = Field(200, ge=1)
    """Patients whose scans are named ``train_*``."""
    num_valid_patients: int = Field(50, ge=0)
    """Patients whose scans are named ``valid_*``; CT-RATE's validation set is our test split."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (1.5, 1.5, 2.0)
    """Nominal voxel size along (x, y, z); each reconstruction varies around it."""
    matrix_px: int = Field(256, ge=64, le=1024)
    """Rows and columns of the reconstruction."""
    flavour: Literal["v1", "v2"] = "v2"
    """CT-RATE release to imitate: v1 raw values and blank header, v2 Hounsfield units."""
    burden: float = Field(0.0, ge=-1, le=2)
    """Added to what drives each finding, in standard deviations; 0 gives CT-RATE's prevalences,
    0.7 doubles most of them."""
    lesion_scale: float = Field(1.0, ge=1, le=3)
    """Enlarges nodules, nodes, plaques and other small lesions; above 1 for grids too coarse to
    show real ones."""
    nodule_mm: float = Field(9.0, ge=2, le=20)
    """Median diameter of lung nodules, log-normal between 4 mm (2 mm where the median is below 4)
    and 28 mm; screening finds smaller ones than the default."""
    second_reconstruction: Fraction = 0.9
    """Share of scans with a second reconstruction (CT-RATE: 0.9)."""
    seed: int = 0
    """Same seed, same bytes."""


class VolumeConfig(Section):
    """From stored voxels to Hounsfield units on a common grid."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (0.75, 0.75, 1.5)
    """Voxel size after resampling along (x, y, z) (paper, Eq. 2)."""
    intensity: Literal["auto", "raw", "hu"] = "auto"
    """Whether stored values need the metadata's slope and intercept; auto decides by histogram."""
    max_tilt_degrees: float = Field(30.0, ge=0.0, le=45.0)
    """Slices stacked off their normal (gantry tilt) are set upright up to this angle, degrees, and
    refused beyond; below 0.5 nothing is done."""
    antialias: bool = False
    """Average where the grid is coarser than the scan; plain sampling (paper) skips voxels."""


class SlicesConfig(Section):
    """Which slices the model sees, and how."""

    num_slices: int = Field(10, ge=2, le=240, multiple_of=2)
    """Slices per volume; even, because the tower reads them in pairs."""
    projection: Projection = "none"
    """none: a frame shows its slice; slab: its wide window shows the maximum of the slab around the
    slice, its other windows the slice. Needs windows: three."""
    slab_mm: float = Field(15.0, ge=5, le=30)
    """Thickness of a slab along z, mm; it ends half-way to the next slice where that is nearer."""
    windows: Literal["single", "three"] = "single"
    """single: [−1000, 1000] HU in all channels; three: wide, soft tissue, lung as channels."""
    token_side_px: Literal[28, 32] = 28
    """Side of what one visual token shows: 28 for Qwen2.5-VL, 32 for Qwen3-VL and Qwen3.5."""
    frame_size_px: tuple[int, int] | None = None
    """(height, width), multiples of token_side_px, reached by centred crop or padding with air,
    never by scaling; None pads each volume to the next multiple."""
    token_budget: int | None = Field(None, ge=1)
    """Visual tokens that a volume's frames may take together; frames that would take more show the
    same field of view with larger pixels. None (paper): all that they take on the grid."""

    @model_validator(mode="after")
    def _frames_are_whole_tokens(self) -> "SlicesConfig":
        token = self.token_side_px
        if self.frame_size_px and any(side % token or side <= 0 for side in self.frame_size_px):
            raise ValueError(f"frame_size_px must be multiples of {token}, one visual token's side")
        if self.token_budget is not None and self.token_budget < self.num_slices // 2:
            raise ValueError("token_budget must leave each pair of slices one visual token")
        if self.projection == "slab" and self.windows != "three":
            raise ValueError("projection: slab needs windows: three, one of which it fills")
        return self

    def as_asked(self) -> dict[str, Any]:
        """As JSON without knobs that are unset or change nothing, so that older folders hold."""
        knobs: dict[str, Any] = self.model_dump(mode="json")
        if self.token_budget is None:
            del knobs["token_budget"]
        if self.token_side_px == 28:
            del knobs["token_side_px"]
        if self.projection == "none":
            del knobs["projection"], knobs["slab_mm"]
        return knobs


class SplitsConfig(Section):
    """Which patients train; decided once, when a data set is prepared."""

    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of training patients held out to choose checkpoints and hyper-parameters."""


class PairsConfig(Section):
    """The negative beside each positive."""

    strategy: Strategy = "origin"
    """origin: no negatives; gauss: noise volume; heter: a patient whose labels differ; hard: the
    most similar patient who contradicts a stated finding."""
    min_label_distance: int = Field(10, ge=1, le=18)
    """Labels that must differ (heter); relaxed one step at a time where nobody qualifies."""
    num_alternatives: int = Field(8, ge=1, le=64)
    """Nearest contradicting volumes among which each epoch draws a study's negative (hard)."""
    mutual: bool = False
    """Two studies are each other's negative and learned together, so that each of the two volumes
    goes through the model once for both reports (heter). Every volume is then shown as often as
    its partner, and min_label_distance is relaxed for who finds nobody free: 4 leaves few of
    CT-RATE's to relax, 10 half of them. Needs an even train.pairs_per_device."""
    seed: int = 0
    """Draws partners and noise."""

    @property
    def shares_prompts(self) -> bool:
        """Whether prompts of two reports are read once."""
        return self.mutual and self.strategy == "heter"

    def as_asked(self) -> dict[str, Any]:
        """As JSON without a knob that is off, so that older runs go on."""
        return self.model_dump(mode="json", exclude=None if self.mutual else {"mutual"})


class ModelConfig(Section):
    """Which model, and what of it learns."""

    preset: Literal["tiny", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3.5-4b"] = "tiny"
    """Dimensions; tiny is the real class at a few million parameters."""
    tuning: Literal["full", "lora"] = "full"
    """full: every unfrozen weight learns; lora: adapters on the language model."""
    freeze_tower: bool = True
    """Frozen: the vision tower's blocks run once per volume and their features are stored."""
    freeze_merger: bool = True
    """Frozen: the layers between tower and language model stay as they are; features are stored
    behind them, else before."""
    lora_r: int = Field(64, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(128, ge=1)
    """Scale of the adapters, in units of rank."""
    positions: Literal["index", "depth"] = "index"
    """index: slice pairs count 0, 1, 2…; depth: time follows the slice position in mm."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of weights and activations."""
    slice_attention: bool = False
    """Finding queries attend over the visual tokens and re-weight slices for the language model;
    they start from the warm-up's, where the starting weights come from one."""
    encoder: str | None = Field(None, min_length=1)
    """Another encoder, by the name its features were taken into the prepared folder under
    (`ctscribe import-features`); they are read in the vision tower's place, through a projector
    that learns. None reads the tower's."""
    cues: bool = False
    """Findings are told in the prompt: in training the true ones; when writing those whose
    calibrated probability is high enough, by the warm-up's finding queries or by a table."""

    @model_validator(mode="after")
    def _tower_stays_where_nobody_reads_it(self) -> "ModelConfig":
        if self.encoder and not (self.freeze_tower and self.freeze_merger):
            raise ValueError(
                "encoder needs freeze_tower: true and freeze_merger: true, since neither is read"
            )
        return self

    def as_asked(self) -> dict[str, Any]:
        """As JSON without knobs that are unset, so that older runs hold."""
        return self.model_dump(mode="json", exclude={"encoder"} if self.encoder is None else None)


class ObjectiveConfig(Section):
    """L = α·CE(positive) + β·term(negative); `learn.objective` has the terms' formulas.

    The defaults are the paper's: α·CE(positive) − β·min(CE(negative), max_loss) (Eq. 4).
    """

    name: Literal["paper", "logistic"] = "paper"
    """The negative's term."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the positive."""
    beta: float = Field(0.1, ge=0)
    """Weight of the negative; 0 leaves it out."""
    max_loss: float = Field(5.0, gt=0)
    """Cap on the negative's cross entropy, nats per token; beyond it no gradient (paper)."""
    margin: float = Field(1.0, gt=0)
    """Nats per token that a wrong scan shall cost more than the own (logistic)."""
    scale: float = Field(2.0, gt=0)
    """Per nat: how abruptly the slope falls around the margin (logistic)."""
    negligible: float = Field(0.01, ge=0, lt=1)
    """Share of the largest slope at which a negative counts as satisfied and costs no backward
    pass (logistic)."""
    scope: Literal["all", "disputed", "weighted"] = "all"
    """Tokens that count: all; those of sentences on findings in which the two scans differ (for
    noise: that state a finding); or all, by how much the scan changes them."""
    temperature: float = Field(1.0, gt=0)
    """Nats: half the change that counts 0.76 (weighted)."""
    beta_schedule: Literal["constant", "steered", "decay"] = "constant"
    """steered: β follows the gap towards target_gap; decay: it falls along a line, from beta at the
    first update to 0 at the last, which reads no negative."""
    target_gap: float = Field(1.0, gt=0)
    """CE(negative) − CE(positive) over the tokens that count, nats per token (steered)."""
    label_weight: float = Field(0.0, ge=0)
    """Weight λ of the 18 labels' cross entropy by the finding queries; needs
    ``model.slice_attention``."""


class WarmUpConfig(Section):
    """Training the vision tower to locate findings, before any report is read."""

    num_patients: int = Field(400, ge=1)
    """Phantom patients drawn for the warm-up; none of them occurs in the data set."""
    epochs: int = Field(6, ge=1)
    """Passes over them."""
    batch_size: int = Field(8, ge=1)
    """Sets of slices per step; each volume gives two."""
    learning_rate: float = Field(5e-3, gt=0)
    """Peak of Muon on the tower's blocks, cosine decay; AdamW takes a fifth of it for the rest."""
    tower: Literal["full", "last_blocks", "lora"] = "full"
    """What of the tower learns: all of it, its last blocks and merger, or adapters of rank
    ``model.lora_r`` on its blocks, which leave a pretrained one nearest to what it was."""
    last_blocks: int = Field(8, ge=1)
    """How many, where the last blocks learn."""
    where_share: Fraction = 1.0
    """Share of the studies whose boxes or masks are used; the others teach by labels alone."""
    attention_weight: float = Field(0.0, ge=0)
    """Weight of −log of the attention that falls on lesions."""
    seed: int = 1000
    """Of the phantom patients and of the initial weights."""


class TrainConfig(Section):
    """Optimiser, batches, checkpoints."""

    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    """What it remembers of a weight that learns: adamw (paper) two numbers of four bytes;
    adamw_8bit, which needs bitsandbytes and a GPU, two of one byte; adafactor one for each row and
    one for each column of a matrix."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak of the optimiser (paper: 2e-5)."""
    tower_learning_rate: float | None = Field(None, gt=0)
    """Peak for the vision tower's blocks where they learn; None takes learning_rate."""
    merger_learning_rate: float | None = Field(None, gt=0)
    """Peak for the merger where it learns, and for an encoder's projector; None takes
    learning_rate."""
    epochs: int = Field(1, ge=1)
    """Passes over the pairs (paper: 1)."""
    pairs_per_device: int = Field(1, ge=1)
    """Studies per micro-batch; 1 means a micro-batch of 2, one study's pair (paper)."""
    gradient_accumulation_steps: int = Field(8, ge=1)
    """Micro-batches per update (paper: 8)."""
    gradient_checkpointing: bool | Literal["cheap", "auto"] = False
    """Compute each layer's activations again in the backward pass instead of keeping them: a third
    more work, several times less memory for activations. cheap: only norms, activation functions
    and products by element; less memory for a few percent more work. auto: the first of false,
    cheap and true that fits the memory at hand by the estimate told before the first step."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the updates during which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled from the gradient, as AdamW has it."""
    checkpoints_per_epoch: int = Field(2, ge=1)
    """Checkpoints, each validated; the one with the lowest validation loss is used."""
    seed: int = 0
    """Order of the studies, dropout, initial weights of adapters and of new finding queries."""
    data_workers: int = Field(0, ge=0, le=64)
    """Processes that read and tokenise coming pairs beside each training process; 0 reads between
    two steps. Not with pairs.strategy hard, whose pairs follow from the training."""
    prefetch: int = Field(2, ge=1, le=64)
    """Micro-batches that each of these keeps ready."""
    time_out_minutes: int = Field(60, ge=1)
    """What the processes of a run wait for one another before they give up, such as while the first
    writes the best weights."""

    def as_asked(self) -> dict[str, Any]:
        """As JSON without what changes no result, so that a run may go on with other values."""
        left_out = {"data_workers", "prefetch", "time_out_minutes"}
        if self.optimizer == "adamw":
            left_out.add("optimizer")  # as older runs have it
        return self.model_dump(mode="json", exclude=left_out)


class ReinforceConfig(Section):
    """Going on from a trained run by what its own drawn reports earn.

    A report earns F1(own findings) − other_weight·F1(another patient's) − unfinished_penalty, the
    last where it is cut; F1 lies between 0 and 1.
    """

    updates: int = Field(500, ge=1)
    """Gradient steps."""
    scans_per_update: int = Field(8, ge=1)
    """Scans that reports are drawn for between two steps."""
    samples_per_scan: int = Field(6, ge=2, le=64)
    """Reports drawn for each of them, which are compared with one another."""
    learning_rate: float = Field(1e-6, gt=0)
    """AdamW, constant, without weight decay."""
    other_weight: float = Field(0.0, ge=0, le=1)
    """What agreement with another patient costs: at 1 reciting earns nothing. Raises precision at
    the cost of Coverage."""
    unfinished_penalty: float = Field(1.0, ge=0, le=2)
    """What a report costs that runs into ``generate.max_new_tokens``."""
    reference_weight: float = Field(0.3, ge=0)
    """Weight λ of the reference report's cross entropy, nats per token, which holds the wording."""
    validate_every: int = Field(50, ge=1)
    """Updates between two validations, each with a checkpoint; the best by F1 is used."""
    seed: int = 0
    """Of the order of the scans, of all draws, and of the other patients."""


class GenerateConfig(Section):
    """Writing reports at temperature 0."""

    max_new_tokens: int = Field(2048, ge=1)
    """Longest report; of 800 of CT-RATE's, Qwen2.5-VL's tokenizer makes 400 tokens on average, more
    than 512 of every fourth, and at most 1,733."""
    batch_size: int = Field(4, ge=1)
    """Studies written at once."""
    contrast: Literal["none", "noise", "others", "mean"] = "none"
    """What every token is held against: reports on noise, on other training patients, or on the
    mean of many training volumes; `learn.model.decoding.Contrast` has the formula."""
    contrast_weight: float = Field(0.25, ge=0)
    """γ; 0 holds against nothing."""
    plausibility: float = Field(0.3, gt=0, le=1)
    """α: tokens less than so many times as likely as the likeliest are not written (contrast)."""
    num_negatives: int = Field(8, ge=1, le=64)
    """Volumes of noise, or other patients."""


class EvaluateConfig(Section):
    """Text handling, optional metrics, intervals."""

    profile: Literal["ctrate-raw", "vlm3d", "r2gen"] = "ctrate-raw"
    """ctrate-raw: sections without their headings, cased; vlm3d: the numbers of CT-RATE's challenge
    (VLM3D), headings and its own averages included; r2gen: CT2Rep's tokens, lower case, no
    punctuation."""
    meteor: bool = False
    """Also METEOR, which needs Java and pycocoevalcap."""
    radeval: tuple[RadEvalMetric, ...] = ()
    """Also these of RadEval, of every system and baseline, from weights that are on disk;
    radfact_ct sends the reports to the server that OPENAI_BASE_URL names, without it to OpenAI."""
    resamples: int = Field(2000, ge=100)
    """Random swaps of patients between two systems, at least, by which a difference is tested."""
    seed: int = 0
    """Of the swaps, and of reports that baselines draw."""


class ExperimentConfig(Section):
    """The grid: variants × betas × seeds."""

    betas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)
    """Table 2's weights of the negative, for `beta_strategy`; 0 is Origin."""
    beta_strategy: Literal["gauss", "heter"] = "gauss"
    """Which negatives Table 2 varies (paper: gauss)."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds per cell."""
    ours: bool = False
    """Also a run without negatives in training that is told findings and held against the mean
    volume, both tuned on validation; the starting weights must come from a warm-up."""


class Recipe(Section):
    """All knobs of one experiment."""

    phantom: PhantomConfig = PhantomConfig()
    volume: VolumeConfig = VolumeConfig()
    slices: SlicesConfig = SlicesConfig()
    splits: SplitsConfig = SplitsConfig()
    pairs: PairsConfig = PairsConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    warm_up: WarmUpConfig = WarmUpConfig()
    train: TrainConfig = TrainConfig()
    reinforce: ReinforceConfig = ReinforceConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    experiment: ExperimentConfig = ExperimentConfig()

    @model_validator(mode="after")
    def _labels_have_a_reader(self) -> "Recipe":
        if self.objective.label_weight and not self.model.slice_attention:
            raise ValueError("objective.label_weight above 0 needs model.slice_attention: true")
        return self

    @model_validator(mode="after")
    def _knobs_of_training_fit(self) -> "Recipe":
        if self.train.data_workers and self.pairs.strategy == "hard":
            raise ValueError("train.data_workers above 0 needs another pairs.strategy than hard")
        if self.pairs.shares_prompts and self.train.pairs_per_device % 2:
            raise ValueError(
                "pairs.mutual: true needs an even train.pairs_per_device, since partners are "
                "learned in one micro-batch"
            )
        if self.train.gradient_checkpointing == "auto" and not self.model.freeze_tower:
            raise ValueError(
                "train.gradient_checkpointing: auto needs model.freeze_tower: true, since what a "
                "tower that learns takes is not estimated"
            )
        return self

    def as_asked(self) -> dict[str, Any]:
        """As JSON, what identifies a run; see `TrainConfig.as_asked`."""
        asked: dict[str, Any] = self.model_dump(mode="json")
        for section in ("pairs", "model", "train"):
            asked[section] = getattr(self, section).as_asked()
        return asked


def read_recipe(name: str | None, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe by path or by the name of a shipped one, then applies ``section.key=value``.

    There is no usual recipe: None is refused with the names that may be given.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ`` or ``E_ENCODING`` for the file; ``E_RECIPE`` naming
            the recipe, the key and, for a misspelt one, the nearest that exists.
    """
    path = _find(name)
    tree = _parse_yaml(read_text(path, _MOST_BYTES), str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise CtscribeError(
            "E_RECIPE", f"{path} must hold sections such as `train:`, but holds none"
        )
    return _checked(tree, overrides, path)


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, by which editors complete and check one.

    It describes each knob as this file does.
    """
    schema = Recipe.model_json_schema()
    for section in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        if isinstance(section, ast.ClassDef) and section.name in schema["$defs"]:
            knobs = schema["$defs"][section.name]["properties"]
            for knob, told in pairwise(section.body):
                match knob, told:
                    case (
                        ast.AnnAssign(target=ast.Name(name)),
                        ast.Expr(ast.Constant(str(description))),
                    ):
                        knobs[name]["description"] = " ".join(description.split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def change_recipe(recipe: Recipe, overrides: tuple[str, ...]) -> Recipe:
    """Applies ``section.key=value`` to a recipe that was read before, such as a run's.

    Raises:
        CtscribeError: ``E_RECIPE``, as `read_recipe`.
    """
    return _checked(recipe.model_dump(mode="json"), overrides, "--set")


def _checked(tree: dict[str, Any], overrides: tuple[str, ...], where: Path | str) -> Recipe:
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise CtscribeError("E_RECIPE", _explain(where, error)) from error


def _parse_yaml(text: str, where: str) -> Any:  # noqa: ANN401 - YAML is what it is
    try:
        return parse_yaml(text)
    except UNPARSABLE as error:
        raise CtscribeError("E_RECIPE", f"{where} must be YAML, but {brief(error)}") from error


def _find(name: str | None) -> Path:
    here = Path(__file__).resolve().parents[1]
    folders = [here / "recipes", here.parents[1] / "recipes"]
    shipped = sorted(p for folder in folders for p in folder.glob("*.y*ml"))
    # a name that can be no file's is simply none
    if name is not None and os.path.isfile(name):  # noqa: PTH113
        return Path(name)
    for path in shipped:
        if path.stem == name:
            return path
    known = ", ".join(path.stem for path in shipped)
    found = "none is given" if name is None else f"{name[:80]!r} is neither"
    raise CtscribeError(
        "E_RECIPE", f"the recipe must be a YAML file or one of {known}, but {found}"
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise CtscribeError("E_RECIPE", f"--set must be section.key=value, but is {override!r}")
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise CtscribeError(
                "E_RECIPE", f"--set {override} must name a knob of a section, but {section} is none"
            )
    tree[leaf] = _parse_yaml(value, f"--set {key}")


def _explain(path: Path | str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return (
            f"{path}: {where} is wrong, {first['msg'].lower()} (got {reprlib.repr(first['input'])})"
        )
    model: Any = Recipe
    for part in first["loc"][:-1]:
        model = model.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(first["loc"][-1]), list(model.model_fields), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(model.model_fields)}"
    return f"{path}: {where} is not a key of a recipe ({hint})"
