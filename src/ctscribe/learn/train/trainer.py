"""The Trainer with its own training step: how a pair of samples becomes gradients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Float64
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import Trainer

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import brief
from ctscribe.base.recipe import ObjectiveConfig
from ctscribe.base.rows import GapRow
from ctscribe.learn.model.finding_queries import label_loss
from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.objective import Term, negative_term, pair_losses
from ctscribe.learn.pairs.collate import Batch, PairBatch
from ctscribe.learn.train.scorer import Part, set_learning_rates

Branch = Literal["positive", "negative"]
_MEANS = (
    *("positive_ce", "positive_finding_ce", "positive_boilerplate_ce", "positive_square"),
    *("negative_ce", "negative_finding_ce", "negative_boilerplate_ce", "negative_square"),
    *("scope_gap", "share_capped", "share_skipped"),
)


@final
class Tally:
    """Running sums and counts of one update's metrics, kept on the device until `take`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = self._zeros()

    def add_branch(
        self,
        branch: Branch,
        token_ce: Float[Tensor, "tokens"],
        study_ce: Float[Tensor, "studies"],
        finding: Bool[Tensor, "tokens"],
        square: Float[Tensor, ""] | None,
    ) -> None:
        """Adds one branch of a micro-batch; infinite values are left out of the means.

        Args:
            branch: Which one.
            token_ce: Cross entropy of each token, nats.
            study_ce: Mean of each study, nats per token.
            finding: Marks tokens in sentences that state a finding.
            square: Squared norm of the branch's gradient; None where both branches share one
                backward pass.
        """
        self._add(f"{branch}_ce", study_ce)
        self._add(f"{branch}_finding_ce", token_ce[finding])
        self._add(f"{branch}_boilerplate_ce", token_ce[~finding])
        if square is not None:
            self._add(f"{branch}_square", square)

    def add_pair(
        self,
        gap: Float[Tensor, "studies_in_scope"],
        satisfied: Bool[Tensor, "studies"],
        *,
        skipped: bool,
    ) -> None:
        """Adds how a micro-batch's negatives compare with its positives."""
        self._add("scope_gap", gap)
        self._add("share_capped", satisfied.double())
        self._add("share_skipped", torch.tensor(float(skipped), device=self._device))

    def take(self) -> Float64[Tensor, "2 means"]:
        """Returns [sums, counts] in the order of `_MEANS`, then resets them."""
        sums, self._sums = self._sums, self._zeros()
        return sums

    def _zeros(self) -> Float64[Tensor, "2 means"]:
        return torch.zeros(2, len(_MEANS), dtype=torch.float64, device=self._device)

    def _add(self, name: str, values: Float[Tensor, "*values"]) -> None:
        finite = torch.isfinite(values)
        self._sums[0, _MEANS.index(name)] += torch.where(finite, values, 0).detach().double().sum()
        self._sums[1, _MEANS.index(name)] += finite.sum()


def means(sums: Float64[Tensor, "2 means"]) -> dict[str, float | None]:
    """Means of what `Tally.take` gives; None where nothing was counted.

    A branch's gradient norm is the root mean square over micro-batches.
    """
    found = {
        name: total / count if count else None
        for name, total, count in zip(_MEANS, *sums.tolist(), strict=True)
    }
    positive, negative = found["positive_ce"], found["negative_ce"]
    found["gap"] = None if positive is None or negative is None else negative - positive
    for branch in ("positive", "negative"):
        square = found.pop(f"{branch}_square")
        found[f"{branch}_grad_norm"] = None if square is None else math.sqrt(square)
    return found


@final
class GradientNorm:
    """The gradient norm of one backward pass, measured by hooks on all trainable weights.

    A hook sees the gradient before it is added to ``weight.grad``, so each branch's norm is exact
    and no copy of the gradients is kept. Of sharded weights it sees the gradient of the whole
    weight from this process's micro-batch, before it is reduced into the shards, so norms equal
    those without sharding. The hooks are registered in the model's forward passes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._squares: list[Tensor] = []
        self._watched: set[Tensor] = set()
        for module in model.modules():
            if module is model or isinstance(module, FSDPModule):
                module.register_forward_pre_hook(self._watch)

    def restart(self) -> None:
        """Starts a new measurement."""
        self._squares = []

    def square(self) -> Float[Tensor, ""]:
        """Squared norm of the gradient since `restart`."""
        return torch.stack(self._squares).sum()

    def _watch(self, module: nn.Module, _: object) -> None:
        """Registers hooks on the weights that are whole now; FSDP gathers them for a forward pass.

        It gathers into the same tensor every time, so one registration suffices.
        """
        for weight in module.parameters():
            is_whole = not isinstance(weight, DTensor)
            if weight.requires_grad and is_whole and weight not in self._watched:
                weight.register_hook(self._measure)  # type: ignore[no-untyped-call]
                self._watched.add(weight)

    def _measure(self, gradient: Tensor) -> None:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        self._squares.append(torch.linalg.vector_norm(gradient.detach(), dtype=wide) ** 2)


_LARGEST_GAP = 1e3
"""Nats; rows hold finite numbers."""


@final
class PairTrainer(Trainer):  # type: ignore[misc]  # untyped in the library
    """Trains on α·CE(positive) + β·term(negative); see `learn.objective`.

    The positive branch has its backward pass first, then the negative branch. So only one branch's
    graph is in memory, and the negatives' term can use the positives' cross entropy. The gradients
    add up to those of the whole objective. A micro-batch whose negatives are all satisfied has no
    backward pass through them.

    Where negatives share prompts with positives (``prompt_rows``), both branches are one graph with
    one backward pass and the same gradients. Satisfied negatives are then left out of its loss, and
    there is no gradient norm per branch.

    Args:
        objective: What is minimised.
        rates: Peak learning rate of each part of the model.
        trainer: The Trainer's own arguments.
    """

    def __init__(
        self,
        *,
        objective: ObjectiveConfig,
        rates: Mapping[Part, float],
        **trainer: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**trainer)
        self._objective = objective
        self.beta = objective.beta
        """Of the next update; `RunCallback` sets it. At 0 no negative is read."""
        self._rates = rates
        self.tally = Tally(self.args.device)
        self.studies: list[str] = []
        """Of the current micro-batch, for errors."""
        self.gaps: list[GapRow] | None = None
        """Of this process since the last update; None where they are not collected."""

    @cached_property
    def _gradient(self) -> GradientNorm:
        # created in the first step, because by then FSDP has sharded the weights
        return GradientNorm(self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The Trainer's optimizer, with a learning rate for each part of the model."""
        is_new = self.optimizer is None
        optimizer: Optimizer = super().create_optimizer(model)
        if is_new:
            set_learning_rates(optimizer, model or self.model, self._rates)
        return optimizer

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """The Trainer's, but a full disk is a `CtscribeError`.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise  # torch writes through a container of its own, and raises nothing else
            raise CtscribeError(
                "E_WRITE",
                f"the checkpoints in {self.args.output_dir} must be writable, but {brief(error)}",
            ) from error

    def training_step(
        self,
        model: nn.Module,
        inputs: PairBatch | CtscribeError,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Float[Tensor, ""]:
        """Adds a micro-batch's gradients; returns the positives' part of its loss.

        With several processes each branch's backward pass reduces the gradients that have
        accumulated so far. Reducing what is already reduced leaves it unchanged, so the sum of both
        branches is right, and a skipped negative communicates nothing.

        Raises:
            CtscribeError: ``E_NAN`` naming the study whose loss is not a number; that of
                `collate_or_error`.
        """
        if isinstance(inputs, CtscribeError):
            raise inputs
        model.train()
        self.studies = inputs["studies"]
        batch: PairBatch = self._prepare_inputs(inputs)
        negative = batch["negative"] if self.beta != 0 else None
        if negative is not None and "prompt_rows" in negative:
            positive = self._learn_both(model, batch, negative)
        else:
            self._gradient.restart()  # before the forward pass, which registers its hooks
            positive = self._learn_positive(model, batch)
            if negative is not None:
                self._learn_negative(model, batch, negative, positive)
        loss = self._objective.alpha * positive.per_sample().mean()
        return loss / int(self.current_gradient_accumulation_steps)

    def _learn_positive(self, model: nn.Module, batch: PairBatch) -> AnswerLosses:
        losses: AnswerLosses = model(batch["positive"])
        square = self._differentiate(self._positive_loss(batch, losses))
        self._count("positive", losses, batch, square)
        return replace(losses, values=losses.values.detach(), finding_logits=None)

    def _learn_negative(
        self, model: nn.Module, batch: PairBatch, negative: Batch, positive: AnswerLosses
    ) -> None:
        losses: AnswerLosses = model(negative)
        term, is_needed = self._compare(batch, positive, losses)
        square = losses.values.new_zeros(())
        if is_needed:
            square = self._differentiate(self.beta * term.values.mean() + _zero(losses))
        elif isinstance(model, FSDPModule):
            # without a backward pass the outermost weights would stay gathered, and would miss the
            # update, which changes the shards only
            model.reshard()
        self._count("negative", losses, batch, square)

    def _learn_both(self, model: nn.Module, batch: PairBatch, negative: Batch) -> AnswerLosses:
        positive: AnswerLosses
        losses: AnswerLosses
        positive, losses = model(batch["positive"], negative)
        loss = self._positive_loss(batch, positive)
        term, is_needed = self._compare(batch, positive, losses)
        if is_needed:
            loss = loss + self.beta * term.values.mean()
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
        self._count("positive", positive, batch, None)
        self._count("negative", losses, batch, None)
        return replace(positive, values=positive.values.detach(), finding_logits=None)

    def _positive_loss(self, batch: PairBatch, losses: AnswerLosses) -> Float[Tensor, ""]:
        ce = losses.per_sample()
        self._require_numbers(torch.isfinite(ce))
        loss = self._objective.alpha * ce.mean()
        if self._objective.label_weight and losses.finding_logits is not None:
            labels = batch["finding_labels"].to(ce.device)
            loss = loss + self._objective.label_weight * label_loss(losses.finding_logits, labels)
        return loss

    def _compare(
        self, batch: PairBatch, positive: AnswerLosses, negative: AnswerLosses
    ) -> tuple[Term, bool]:
        """The negatives' term, and whether any process needs a backward pass through it."""
        ce = negative.per_sample()
        self._require_numbers(~torch.isnan(ce))
        branches = positive.values, negative.values
        pair = pair_losses(
            self._objective, *branches, negative.rows, len(self.studies), batch["disputed"]
        )
        term = negative_term(self._objective, pair)
        # a backward pass is collective, so all processes must decide alike
        num_needing = self.accelerator.reduce((~term.satisfied.all()).float(), reduction="sum")
        is_needed = bool(num_needing > 0)
        self.tally.add_pair(pair.gap(), term.satisfied, skipped=not is_needed)
        if self.gaps is not None:
            gaps = (ce - positive.per_sample()).detach().clamp(-_LARGEST_GAP, _LARGEST_GAP)
            for study, shown, gap in zip(self.studies, batch["shown"], gaps.tolist(), strict=True):
                if shown is not None:
                    self.gaps.append(GapRow(study=study, volume=shown, gap=gap))
        return term, is_needed

    def _count(
        self,
        branch: Branch,
        losses: AnswerLosses,
        batch: PairBatch,
        square: Float[Tensor, ""] | None,
    ) -> None:
        self.tally.add_branch(branch, losses.values, losses.per_sample(), batch["finding"], square)

    def _differentiate(self, loss: Tensor) -> Float[Tensor, ""]:
        """Backward pass of one branch; returns the squared norm of its gradient alone."""
        steps = self.current_gradient_accumulation_steps
        self._gradient.restart()
        self.accelerator.backward(loss / steps)
        square: Tensor = self._gradient.square() * int(steps) ** 2
        return square

    def _require_numbers(self, is_number: Tensor) -> None:
        if not bool(is_number.all()):
            each = zip(self.studies, is_number.tolist(), strict=True)
            wrong = [name for name, is_fine in each if not is_fine]
            raise not_a_number(wrong, self.state.global_step)


def _zero(losses: AnswerLosses) -> Tensor | float:
    """Zero, connected to the finding queries: DDP waits for a gradient of each trainable weight."""
    return 0.0 if losses.finding_logits is None else 0 * losses.finding_logits.sum()


def not_a_number(studies: Sequence[str], step: int) -> CtscribeError:
    """The error for a loss or gradient that is NaN or infinite after ``step`` updates."""
    return CtscribeError(
        "E_NAN",
        f"loss and gradients must be finite, but after {step} updates they are not, on "
        f"{', '.join(studies)}",
    )
