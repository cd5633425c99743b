"""One override of the Trainer: how a pair becomes gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from ctscribe.errors import CtscribeError
from ctscribe.model.qwen import AnswerLosses
from ctscribe.model.slice_attention import label_loss
from ctscribe.objectives.losses import PairLosses
from ctscribe.objectives.objective import Objective
from ctscribe.objectives.terms import Term
from ctscribe.pairs.collate import Batch, PairBatch, join_branches
from ctscribe.train.branches import Branch, Branches
from ctscribe.train.rates import Part, set_rates
from ctscribe.train.tally import Tally


@final
class PairTrainer(Trainer):  # type: ignore[misc]  # untyped in the library
    """Trains on α·CE(positive) + β·term(negative), as `objectives.objective.Objective` has it.

    Each branch is differentiated on its own, the positive first, so that their graphs are never
    held together and the negative's term can look at the positive's cross entropy; a micro-batch
    whose negatives are all satisfied has no backward pass through them. Their gradients add up to
    those of the whole.

    Args:
        objective: What is minimised.
        beta: Weight of the negative's term in the next update; whoever follows the training sets
            it anew. At 0 the negative is not looked at.
        label_weight: λ of the 18 labels' cross entropy by the finding queries of the positive.
        rates: Peak learning rate of each part of the model.
        packed: Whether both branches go through the model in one row; then they are
            differentiated together.
        **trainer: As for the Trainer.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        beta: float,
        label_weight: float,
        rates: Mapping[Part, float],
        packed: bool = False,
        **trainer: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**trainer)
        self._objective = objective
        self.beta = beta
        self._label_weight = label_weight
        self._rates = rates
        self._packed = packed
        self.tally = Tally(self.args.device)
        self.studies: list[str] = []
        """Of the micro-batch at work, for errors."""
        self._branches = Branches(self.model, objective.reach)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The Trainer's, with the parts' own learning rates."""
        is_new = self.optimizer is None
        optimizer: Optimizer = super().create_optimizer(model)
        if is_new:
            set_rates(optimizer, model or self.model, self._rates)
        return optimizer

    def training_step(
        self,
        model: nn.Module,
        inputs: PairBatch,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Float[Tensor, ""]:
        """Adds a micro-batch's gradients; returns the positives' part of its loss.

        With several processes each branch's backward pass sends what has been gathered: the mean
        of a mean and a new gradient is the mean of both, and a skipped negative sends nothing.

        Raises:
            CtscribeError: ``E_NAN`` naming the study whose loss is not a number.
        """
        model.train()
        self.studies = inputs["studies"]
        batch: PairBatch = self._prepare_inputs(inputs)
        negative = batch["negative"] if self.beta != 0 else None
        if self._packed and negative is not None:
            positive = self._learn_together(model, batch, negative)
        else:
            positive = self._learn_positive(model, batch)
            if negative is not None:
                self._learn_negative(model, batch, negative, positive)
        loss = self._objective.alpha * positive.per_sample().mean()
        return loss / int(self.current_gradient_accumulation_steps)

    def _learn_positive(self, model: nn.Module, batch: PairBatch) -> AnswerLosses:
        losses: AnswerLosses = model(batch["positive"])
        ce = losses.per_sample()
        square = self._differentiate("positive", self._positive_loss(losses, batch))
        self.tally.add_branch("positive", losses.values, ce, batch["finding"], square)
        return replace(losses, values=losses.values.detach(), finding_logits=None)

    def _positive_loss(self, losses: AnswerLosses, batch: PairBatch) -> Tensor:
        ce = losses.per_sample()
        self._require_numbers(torch.isfinite(ce))
        loss = self._objective.alpha * ce.mean()
        if self._label_weight and losses.finding_logits is not None:
            labels = batch["finding_labels"].to(ce.device)
            loss = loss + self._label_weight * label_loss(losses.finding_logits, labels)
        return loss

    def _learn_together(self, model: nn.Module, batch: PairBatch, negative: Batch) -> AnswerLosses:
        joined: AnswerLosses = model(join_branches(batch["positive"], negative))
        positive, losses = joined.halves()
        pair, term = self._term(batch, positive, losses)
        loss = self._positive_loss(positive, batch) + self.beta * term.values.mean()
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
        halves: tuple[tuple[Branch, AnswerLosses], ...] = (
            ("positive", positive),
            ("negative", losses),
        )
        for branch, half in halves:
            ce = half.per_sample()
            self.tally.add_branch(branch, half.values, ce, batch["finding"], None)
        self.tally.add_pair(pair.gap(), term.satisfied, skipped=False)
        return replace(positive, values=positive.values.detach(), finding_logits=None)

    def _term(
        self, batch: PairBatch, positive: AnswerLosses, negative: AnswerLosses
    ) -> tuple[PairLosses, Term]:
        self._require_numbers(~torch.isnan(negative.per_sample()))
        pair = self._objective.pair(
            positive.values, negative.values, negative.rows, negative.num_rows, batch["disputed"]
        )
        return pair, self._objective.negative(pair)

    def _learn_negative(
        self, model: nn.Module, batch: PairBatch, negative: Batch, positive: AnswerLosses
    ) -> None:
        losses: AnswerLosses = model(negative)
        ce = losses.per_sample()
        pair, term = self._term(batch, positive, losses)
        is_needed = self._on_any_process(~term.satisfied.all())
        square = None if is_needed else torch.zeros_like(ce[0])
        if is_needed:
            square = self._differentiate("negative", self.beta * term.values.mean())
        self.tally.add_branch("negative", losses.values, ce, batch["finding"], square)
        self.tally.add_pair(pair.gap(), term.satisfied, skipped=not is_needed)

    def _differentiate(self, branch: Branch, loss: Tensor) -> Tensor | None:
        """Backward pass of one branch; squared norm of its gradient as if it were alone."""
        steps = self.current_gradient_accumulation_steps
        self._branches.begin(branch)
        self.accelerator.backward(loss / steps)
        square = self._branches.square()
        return None if square is None else square * steps**2

    def _on_any_process(self, flag: Tensor) -> bool:
        # Processes meet in every backward pass that sends gradients, so all must decide alike.
        return bool(self.accelerator.reduce(flag.float(), reduction="sum") > 0)

    def _require_numbers(self, fine: Tensor) -> None:
        if not bool(fine.all()):
            wrong = [name for name, ok in zip(self.studies, fine.tolist(), strict=True) if not ok]
            raise not_a_number(wrong, self.state.global_step)


def not_a_number(studies: Sequence[str], step: int) -> CtscribeError:
    """The error for a loss or gradient that is NaN or infinite after ``step`` updates."""
    return CtscribeError(
        "E_NAN",
        f"loss and gradients must be finite, but after {step} updates they are not, on "
        f"{', '.join(studies)}; lower train.learning_rate and use a new run folder, or continue "
        "from the last complete checkpoint, which is kept",
    )
