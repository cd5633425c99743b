"""All knobs by section, and a YAML file with `--set` overrides → a checked `Recipe`."""

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
from ctscribe.base.types import Flavour, Intensity, Projection, Strategy, Windows

Millimetres = Annotated[float, Field(gt=0, le=20)]
Fraction = Annotated[float, Field(ge=0, le=1)]
RadEvalMetric = Literal["green", "ratescore", "radgraph", "radfact_ct", "f1radbert_ct", "bertscore"]
_MAX_BYTES = 1 << 16
"""Size of a recipe file; one that sets every knob has a tenth of it."""


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
    flavour: Flavour = "v2"
    """CT-RATE release to imitate: v1 raw values and blank header, v2 Hounsfield units."""
    burden: float = Field(0.0, ge=-1, le=2)
    """Raises the latent variable of every finding, in standard deviations; 0 gives CT-RATE's
    prevalences, 0.7 doubles most of them."""
    lesion_scale: float = Field(1.0, ge=1, le=3)
    """Enlarges nodules, nodes, plaques and other small lesions; above 1 for grids too coarse to
    show real ones."""
    nodule_mm: float = Field(9.0, ge=2, le=20)
    """Median diameter of lung nodules, log-normal between 4 mm (2 mm where the median is below 4)
    and 28 mm; screening finds smaller ones than the default."""
    second_reconstruction: Fraction = 0.9
    """Share of scans with a second reconstruction (CT-RATE: 0.9)."""
    seed: int = 0
    """The same seed gives the same bytes."""


class VolumeConfig(Section):
    """From stored voxels to Hounsfield units on a common grid."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (0.75, 0.75, 1.5)
    """Voxel size after resampling along (x, y, z) (paper, Eq. 2)."""
    intensity: Intensity = "auto"
    """Whether stored values need the metadata's slope and intercept; auto decides by histogram."""
    max_tilt_degrees: float = Field(30.0, ge=0.0, le=45.0)
    """Slices that are not stacked along their normal (gantry tilt) are sheared upright up to this
    angle, degrees, and refused beyond; below 0.5 nothing is done."""
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
    windows: Windows = "single"
    """single: [−1000, 1000] HU in all channels; three: wide, soft tissue, lung as channels."""
    token_side_px: Literal[28, 32] = 28
    """Side of the square that a visual token shows: Qwen2.5-VL 28, Qwen3-VL and Qwen3.5 32."""
    frame_size_px: tuple[int, int] | None = None
    """(height, width), multiples of token_side_px. Slices are cropped or padded with air around
    their centre, never scaled; None pads each volume to the next multiple."""
    token_budget: int | None = Field(None, ge=1)
    """Most visual tokens for all frames of a volume; frames that would need more show the same
    field of view with larger pixels. None (paper): no limit."""

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
        """As JSON; newer knobs only where they have an effect, so that older folders match."""
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
    """Labels in which the negative must differ (heter); lowered step by step where none does."""
    num_alternatives: int = Field(8, ge=1, le=64)
    """Nearest contradicting volumes among which each epoch draws a study's negative (hard)."""
    mutual: bool = False
    """Two studies are each other's negative and trained in one micro-batch, so that the model reads
    each of the two volumes once for both reports (heter). Every volume is then shown as often as
    its partner. min_label_distance is lowered for studies that find no free partner: with 4 for few
    of CT-RATE's, with 10 for half of them. Needs an even train.pairs_per_device."""
    seed: int = 0
    """Draws partners and noise."""

    @property
    def shares_prompts(self) -> bool:
        """Whether the model reads a volume once for the reports of both partners."""
        return self.mutual and self.strategy == "heter"

    def as_asked(self) -> dict[str, Any]:
        """As JSON; ``mutual`` only where it is on, so that older runs can be resumed."""
        return self.model_dump(mode="json", exclude=None if self.mutual else {"mutual"})


class ModelConfig(Section):
    """Which model, and what of it learns."""

    preset: Literal["tiny", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3.5-4b"] = "tiny"
    """Architecture and size; tiny is Qwen2.5-VL's class with a few million parameters."""
    tuning: Literal["full", "lora"] = "full"
    """full: every unfrozen weight learns; lora: adapters on the language model."""
    freeze_tower: bool = True
    """If true, the vision tower runs once per volume and its features are stored."""
    freeze_merger: bool = True
    """If true, the layers between tower and language model do not learn, and features are stored
    after them, else before."""
    lora_r: int = Field(64, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(128, ge=1)
    """Scale of the adapters, in units of rank."""
    positions: Literal["index", "depth"] = "index"
    """index: slice pairs count 0, 1, 2…; depth: time follows the slice position in mm."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of weights and activations."""
    slice_attention: bool = False
    """Finding queries attend over the visual tokens and re-weight slices for the language model;
    they start from the warm-up's, where the starting weights come from one."""
    encoder: str | None = Field(None, min_length=1)
    """Name of another encoder whose features `ctscribe import-features` copied into the prepared
    folder. They replace the vision tower's, behind a projector that learns. None: the tower's."""
    cues: bool = False
    """The prompt names findings: in training the true ones, in generation those whose calibrated
    probability, from the warm-up's finding queries or a table, is high enough."""

    @model_validator(mode="after")
    def _unread_tower_is_frozen(self) -> "ModelConfig":
        if self.encoder and not (self.freeze_tower and self.freeze_merger):
            raise ValueError(
                "encoder needs freeze_tower: true and freeze_merger: true, since neither is read"
            )
        return self

    def as_asked(self) -> dict[str, Any]:
        """As JSON; ``encoder`` only where it is set, so that older runs still match."""
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
    """How much higher the loss on a wrong scan should be, nats per token (logistic)."""
    scale: float = Field(2.0, gt=0)
    """Steepness of the logistic around the margin, per nat (logistic)."""
    negligible: float = Field(0.01, ge=0, lt=1)
    """Share of the largest slope at which a negative counts as satisfied and costs no backward
    pass (logistic)."""
    scope: Literal["all", "disputed", "weighted"] = "all"
    """Tokens in the negative's loss. all: every one; disputed: those of sentences on findings in
    which the two scans differ (for noise: that state a finding); weighted: every one, weighted by
    how much the scan changes its loss."""
    temperature: float = Field(1.0, gt=0)
    """Nats; a change of twice this gives the weight tanh(1) = 0.76 (weighted)."""
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
    """Which weights of the tower learn: all, those of its last blocks and merger, or adapters of
    rank ``model.lora_r`` on its blocks, which change a pretrained tower least."""
    last_blocks: int = Field(8, ge=1)
    """Number of blocks that learn (last_blocks)."""
    where_share: Fraction = 1.0
    """Share of the studies whose boxes or masks are used; the others teach by labels alone."""
    attention_weight: float = Field(0.0, ge=0)
    """Weight of −log of the attention that falls on lesions."""
    seed: int = 1000
    """Seed of the phantom patients and of the initial weights."""


class TrainConfig(Section):
    """Optimiser, batches, checkpoints."""

    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    """By the state that it keeps per weight: adamw (paper) two numbers of four bytes; adamw_8bit,
    which needs bitsandbytes and a GPU, two of one byte; adafactor one number for each row and one
    for each column of a matrix."""
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
    and elementwise products; less memory for a few percent more work. auto: the first of false,
    cheap and true that fits the available memory by the estimate printed before the first step."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the updates during which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled from the gradient, as AdamW has it."""
    checkpoints_per_epoch: int = Field(2, ge=1)
    """Checkpoints, each validated; the one with the lowest validation loss is used."""
    seed: int = 0
    """Seed of the studies' order, dropout, and the initial adapters and finding queries."""
    data_workers: int = Field(0, ge=0, le=64)
    """Processes per training process that read and tokenise pairs ahead; 0 reads them between two
    steps. Not with pairs.strategy hard, whose pairs depend on the training so far."""
    prefetch: int = Field(2, ge=1, le=64)
    """Micro-batches that each data worker keeps ready."""
    time_out_minutes: int = Field(60, ge=1)
    """How long the processes of a run wait for one another before they give up, such as while the
    first writes the best weights."""

    def as_asked(self) -> dict[str, Any]:
        """As JSON without knobs that change no result, so that a run resumes with other values."""
        left_out = {"data_workers", "prefetch", "time_out_minutes"}
        if self.optimizer == "adamw":
            left_out.add("optimizer")  # older runs, all adamw, do not name it
        return self.model_dump(mode="json", exclude=left_out)


class ReinforceConfig(Section):
    """Reinforcement learning from a trained run, rewarding reports that it samples itself.

    The reward is F1(own findings) − other_weight·F1(another patient's findings) −
    unfinished_penalty, the last only for a report that is cut off; F1 lies between 0 and 1.
    """

    updates: int = Field(500, ge=1)
    """Gradient steps."""
    scans_per_update: int = Field(8, ge=1)
    """Scans per step for which reports are sampled."""
    samples_per_scan: int = Field(6, ge=2, le=64)
    """Reports sampled for each scan, whose rewards are compared with one another."""
    learning_rate: float = Field(1e-6, gt=0)
    """AdamW, constant, without weight decay."""
    other_weight: float = Field(0.0, ge=0, le=1)
    """Cost of agreeing with another patient's findings; at 1, reciting a template earns nothing.
    Raises precision at the cost of Coverage."""
    unfinished_penalty: float = Field(1.0, ge=0, le=2)
    """Cost of a report that runs into ``generate.max_new_tokens``."""
    reference_weight: float = Field(0.3, ge=0)
    """Weight λ of the reference report's cross entropy per token, which preserves the wording."""
    validate_every: int = Field(50, ge=1)
    """Updates between two validations, each with a checkpoint; the one with the best F1 is used."""
    seed: int = 0
    """Seed of the scans' order, the sampling, and the choice of other patients."""


class GenerateConfig(Section):
    """Writing reports at temperature 0."""

    max_new_tokens: int = Field(2048, ge=1)
    """Longest report, in tokens. 800 reports of CT-RATE have 400 on average by Qwen2.5-VL's
    tokenizer, a quarter of them more than 512, none more than 1,733."""
    batch_size: int = Field(4, ge=1)
    """Studies written at once."""
    contrast: Literal["none", "noise", "others", "mean"] = "none"
    """Contrastive decoding against the same model on noise, on other training patients, or on the
    mean of many training volumes; `learn.model.decoding.Contrast` has the formula."""
    contrast_weight: float = Field(0.25, ge=0)
    """Weight γ of the contrast; 0 turns it off."""
    plausibility: float = Field(0.3, gt=0, le=1)
    """α: tokens with less than α times the likeliest token's probability are not written."""
    num_negatives: int = Field(8, ge=1, le=64)
    """Volumes in the contrast: noise, or other patients."""


class EvaluateConfig(Section):
    """Text handling, optional metrics, intervals."""

    profile: Literal["ctrate-raw", "vlm3d", "r2gen"] = "ctrate-raw"
    """ctrate-raw: sections without their headings, cased; vlm3d: the numbers of CT-RATE's challenge
    (VLM3D), headings and its own averages included; r2gen: CT2Rep's tokens, lower case, no
    punctuation."""
    meteor: bool = False
    """Also METEOR, which needs Java and pycocoevalcap."""
    radeval: tuple[RadEvalMetric, ...] = ()
    """Metrics of RadEval to add for every system and baseline, from weights on disk. radfact_ct
    sends the reports to the server at OPENAI_BASE_URL, or to OpenAI where that is not set."""
    resamples: int = Field(2000, ge=100)
    """Least number of permutations (patients swapped between two systems) in a test."""
    seed: int = 0
    """Seed of the permutations, and of reports that baselines draw."""


class ExperimentConfig(Section):
    """The grid: variants × betas × seeds."""

    betas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)
    """Table 2's weights of the negative, for `beta_strategy`; 0 is Origin."""
    beta_strategy: Literal["gauss", "heter"] = "gauss"
    """Which negatives Table 2 varies (paper: gauss)."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds per cell."""
    ours: bool = False
    """Adds a run without negatives in training, whose prompt names findings and whose decoding is
    contrasted with the mean volume, both tuned on validation. Needs a warm-up's weights."""


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
    def _label_loss_has_queries(self) -> "Recipe":
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
        """As the JSON that identifies a run; see `TrainConfig.as_asked`."""
        asked: dict[str, Any] = self.model_dump(mode="json")
        for section in ("pairs", "model", "train"):
            asked[section] = getattr(self, section).as_asked()
        return asked


def read_recipe(name: str | None, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe by path or by the name of a shipped one, then applies ``section.key=value``.

    There is no default recipe: None is refused, and the error lists the shipped names.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ`` or ``E_ENCODING`` for the file; ``E_RECIPE`` naming
            the recipe, the key and, for a misspelt one, the nearest that exists.
    """
    path = _find(name)
    tree = _parse_yaml(read_text(path, _MAX_BYTES), str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise CtscribeError(
            "E_RECIPE", f"{path} must hold sections such as `train:`, but holds none"
        )
    return _checked(tree, overrides, path)


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for completion and checks in editors.

    Knobs are described by their docstrings, which are read from this file's source.
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
    # os.path, because Path.is_file raises for names that no file can have
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
