"""One override of the Trainer: how a pair becomes gradients."""

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
from ctscribe.learn.train.scorer import Part, set_rates

Branch = Literal["positive", "negative"]
_MEANS = (
    *("positive_ce", "positive_finding_ce", "positive_boilerplate_ce", "positive_square"),
    *("negative_ce", "negative_finding_ce", "negative_boilerplate_ce", "negative_square"),
    *("scope_gap", "share_capped", "share_skipped"),
)


@final
class Tally:
    """Sums and counts over one update; no value leaves the device until it is read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = self._nothing()

    def add_branch(
        self,
        branch: Branch,
        token_ce: Float[Tensor, "tokens"],
        study_ce: Float[Tensor, "studies"],
        finding: Bool[Tensor, "tokens"],
        square: Float[Tensor, ""] | None,
    ) -> None:
        """Counts one branch of a micro-batch; infinite cross entropies are not in the means.

        Cross entropies are nats, of tokens and per token; ``finding`` marks tokens in sentences
        that state a finding; ``square`` is the squared norm of the branch's gradient, None where
        it is not told apart.
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
        """Counts how a micro-batch's negatives compare with its positives."""
        self._add("scope_gap", gap)
        self._add("share_capped", satisfied.double())
        self._add("share_skipped", torch.tensor(float(skipped), device=self._device))

    def take(self) -> Float64[Tensor, "2 means"]:
        """Sums and counts in a fixed order, ready to be added over processes; starts anew."""
        sums, self._sums = self._sums, self._nothing()
        return sums

    def _nothing(self) -> Float64[Tensor, "2 means"]:
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
    """Hooks on every weight that learns, which measure the gradient of one backward pass.

    A hook sees that gradient before it is added to what is there, so each branch's norm is exact,
    costs one read of the gradients and keeps no copy. Of sharded weights the hooks see what the
    process's own micro-batch gives to the whole weight, before it is summed into the shards, so
    norms are the same as of unsharded ones. The model's forward passes put the hooks in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self._squares: list[Tensor] = []
        self._watched: set[Tensor] = set()
        for module in model.modules():
            if module is model or isinstance(module, FSDPModule):
                module.register_forward_pre_hook(self._watch)

    def restart(self) -> None:
        """Forgets what has been measured."""
        self._squares = []

    def square(self) -> Float[Tensor, ""]:
        """Squared norm of the gradient since `restart`."""
        return torch.stack(self._squares).sum()

    def _watch(self, module: nn.Module, _: object) -> None:
        """Puts hooks on the weights that are whole now: a sharded one is while it is needed.

        FSDP gathers into the same tensor every time, so a hook stays.
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
    """Trains on α·CE(positive) + β·term(negative), as `learn.objective` has it.

    Each branch is differentiated on its own, the positive first, so that their graphs are never
    held together and the negative's term can look at the positive's cross entropy; a micro-batch
    whose negatives are all satisfied has no backward pass through them. Their gradients add up to
    those of the whole.

    Where negatives share prompts with positives (``prompt_rows``) both branches are one graph and
    one backward pass, with the same gradients: it is left out of the negatives where all are
    satisfied, and their norms are not told apart.

    Beside the Trainer's own arguments it takes what is minimised and the peak learning rate of
    each part of the model.
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
        """Of the micro-batch at work, for errors."""
        self.gaps: list[GapRow] | None = None
        """Of this process since the last update, where somebody wants them."""

    @cached_property
    def _gradient(self) -> GradientNorm:
        # made by the first step: by then weights are sharded, where they are
        return GradientNorm(self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The Trainer's, with the parts' own learning rates."""
        is_new = self.optimizer is None
        optimizer: Optimizer = super().create_optimizer(model)
        if is_new:
            set_rates(optimizer, model or self.model, self._rates)
        return optimizer

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """The Trainer's; a full disk is one sentence.

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

        With several processes each branch's backward pass sends what has been gathered: the mean
        of a mean and a new gradient is the mean of both, and a skipped negative sends nothing.

        Raises:
            CtscribeError: ``E_NAN`` naming the study whose loss is not a number; that of
                `collate_carried`.
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
            self._gradient.restart()  # before the forward pass, in which it meets the weights
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
            # without a backward pass the outermost weights would stay as they were gathered,
            # through the update, which changes the shards alone
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
        """The negatives' term, and whether any process has one that is not satisfied."""
        ce = negative.per_sample()
        self._require_numbers(~torch.isnan(ce))
        branches = positive.values, negative.values
        pair = pair_losses(
            self._objective, *branches, negative.rows, len(self.studies), batch["disputed"]
        )
        term = negative_term(self._objective, pair)
        # processes meet in every backward pass that sends gradients, so all must decide alike
        wanting = self.accelerator.reduce((~term.satisfied.all()).float(), reduction="sum")
        is_needed = bool(wanting > 0)
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
        """Backward pass of one branch; squared norm of its gradient as if it were alone."""
        steps = self.current_gradient_accumulation_steps
        self._gradient.restart()
        self.accelerator.backward(loss / steps)
        square: Tensor = self._gradient.square() * int(steps) ** 2
        return square

    def _require_numbers(self, fine: Tensor) -> None:
        if not bool(fine.all()):
            wrong = [name for name, ok in zip(self.studies, fine.tolist(), strict=True) if not ok]
            raise not_a_number(wrong, self.state.global_step)


def _zero(losses: AnswerLosses) -> Tensor | float:
    """Zero that still reaches the finding queries: processes wait for every weight that learns."""
    return 0.0 if losses.finding_logits is None else 0 * losses.finding_logits.sum()


def not_a_number(studies: Sequence[str], step: int) -> CtscribeError:
    """The error for a loss or gradient that is NaN or infinite after ``step`` updates."""
    return CtscribeError(
        "E_NAN",
        f"loss and gradients must be finite, but after {step} updates they are not, on "
        f"{', '.join(studies)}",
    )
