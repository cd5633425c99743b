"""Knobs of the model, of its objective and of its training."""

from typing import Literal

from pydantic import Field

from ctscribe.config.section import Section


class ModelConfig(Section):
    """Which Qwen2.5-VL, and what of it learns."""

    preset: Literal["tiny", "qwen2.5-vl-3b", "qwen2.5-vl-7b"] = "tiny"
    """Dimensions; tiny is the real class at a few million parameters."""
    weights: str | None = None
    """Local folder or hub id of the starting weights; None means the preset's own."""
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


class ObjectiveConfig(Section):
    """L = α·CE(positive) + β·term(negative); `objectives.objective` has the terms' formulas.

    The defaults are the paper's: α·CE(positive) − β·min(CE(negative), max_loss) (Eq. 4).
    """

    name: Literal["paper", "logistic"] = "paper"
    """The negative's term."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the positive."""
    beta: float = Field(0.1, ge=0)
    """Weight of the negative; at 0 it is not looked at."""
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
    beta_schedule: Literal["constant", "steered"] = "constant"
    """steered: β follows the gap towards target_gap."""
    target_gap: float = Field(1.0, gt=0)
    """CE(negative) − CE(positive) over the tokens that count, nats per token (steered)."""
    label_weight: float = Field(0.0, ge=0)
    """Weight λ of the 18 labels' cross entropy by the finding queries; needs
    ``model.slice_attention``."""


class WarmUpConfig(Section):
    """Teaching the tower where findings are, before any report is read."""

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
    where_share: float = Field(1.0, ge=0, le=1)
    """Share of the studies whose boxes or masks are used; the others teach by labels alone."""
    attention_weight: float = Field(0.0, ge=0)
    """Weight of −log of the attention that falls on lesions."""
    seed: int = 1000
    """Of the phantom patients and of the initial weights."""


class TrainConfig(Section):
    """Optimisation."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak of AdamW (paper: 2e-5)."""
    tower_learning_rate: float | None = Field(None, gt=0)
    """Peak for the vision tower's blocks where they learn; None takes learning_rate."""
    merger_learning_rate: float | None = Field(None, gt=0)
    """Peak for the merger where it learns; None takes learning_rate."""
    epochs: int = Field(1, ge=1)
    """Passes over the pairs (paper: 1)."""
    pairs_per_device: int = Field(1, ge=1)
    """Studies per micro-batch; 1 means a micro-batch of 2, one study's pair (paper)."""
    gradient_accumulation_steps: int = Field(8, ge=1)
    """Micro-batches per update (paper: 8)."""
    gradient_checkpointing: bool | Literal["cheap"] = False
    """Compute each layer's activations again in the backward pass instead of keeping them: a third
    more work, several times less memory for activations. cheap: only norms, activation functions
    and products by element; half the memory for a few percent more work."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the updates during which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW."""
    checkpoints_per_epoch: int = Field(2, ge=1)
    """Checkpoints, each validated; the one with the lowest validation loss is used."""
    seed: int = 0
    """Order of the studies, dropout, initial weights of adapters and of new finding queries."""
