"""One override of the Trainer: how a pair becomes gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from transformers import Trainer

from ctscribe.errors import CtscribeError
from ctscribe.model.qwen import AnswerLosses
from ctscribe.model.slice_attention import label_loss
from ctscribe.objectives.losses import PairLosses
from ctscribe.objectives.objective import Objective
from ctscribe.objectives.terms import Term
from ctscribe.pairs.collate import Batch, PairBatch, join_branches
from ctscribe.rows import GapRow
from ctscribe.train.branches import Branch, Branches
from ctscribe.train.rates import Part, set_rates
from ctscribe.train.tally import Tally

_LARGEST_GAP = 1e3
"""Nats; rows hold finite numbers."""


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
        self.gaps: list[GapRow] | None = None
        """Of this process since the last update, where somebody wants them."""

    @cached_property
    def _branches(self) -> Branches:
        # made by the first step: by then weights are sharded, where they are
        return Branches(self.model, self._objective.reach)

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
        self._branches.begin("positive")  # before the forward pass, in which weights are met
        self.studies = inputs["studies"]
        batch: PairBatch = self._prepare_inputs(inputs)
        if self._packed and self.beta != 0 and batch["negative"] is not None:
            positive = self._learn_together(model, batch, batch["negative"])
        else:
            positive = self._learn_positive(model, batch)
            if self.beta != 0 and not self._packed:
                self._learn_negative(model, batch, positive)
        loss = self._objective.alpha * positive.per_sample().mean()
        return loss / int(self.current_gradient_accumulation_steps)

    def _learn_positive(self, model: nn.Module, batch: PairBatch) -> AnswerLosses:
        losses: AnswerLosses = model(batch["positive"])
        square = self._differentiate("positive", self._positive_loss(losses, batch))
        self._tell_positive(batch, losses, square)
        return replace(losses, values=losses.values.detach(), finding_logits=None)

    def _positive_loss(self, losses: AnswerLosses, batch: PairBatch) -> Tensor:
        ce = losses.per_sample()
        self._require_numbers(torch.isfinite(ce))
        loss = self._objective.alpha * ce.mean()
        if self._label_weight and losses.finding_logits is not None:
            labels = batch["finding_labels"].to(ce.device)
            loss = loss + self._label_weight * label_loss(losses.finding_logits, labels)
        return loss

    def _learn_negative(self, model: nn.Module, batch: PairBatch, positive: AnswerLosses) -> None:
        branch = batch["negative"]
        is_paired = branch is not None and bool(batch["paired"].any())
        if not self._on_any_process(torch.tensor(is_paired, device=self.args.device)):
            return
        if branch is None or not is_paired:
            self._keep_company(model, batch["positive"])
            return
        losses: AnswerLosses = model(branch)
        pair, term = self._term(batch, positive, losses)
        is_needed = self._on_any_process(~term.satisfied.all())
        square = None if is_needed else losses.values.new_zeros(())
        if is_needed:
            loss = self.beta * term.values.mean() + _nothing(losses)
            square = self._differentiate("negative", loss)
        else:
            _reshard(model)
        self._tell_negative(batch, positive, losses, square)
        self._tell_pair(batch, pair, term, skipped=not is_needed)

    def _learn_together(self, model: nn.Module, batch: PairBatch, negative: Batch) -> AnswerLosses:
        joined: AnswerLosses = model(join_branches(batch["positive"], negative))
        positive, losses = joined.halves()
        pair, term = self._term(batch, positive, losses)
        loss = self._positive_loss(positive, batch) + self.beta * term.values.mean()
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
        self._tell_positive(batch, positive, None)
        self._tell_negative(batch, positive, losses, None)
        self._tell_pair(batch, pair, term, skipped=False)
        return replace(positive, values=positive.values.detach(), finding_logits=None)

    def _term(
        self, batch: PairBatch, positive: AnswerLosses, negative: AnswerLosses
    ) -> tuple[PairLosses, Term]:
        self._require_numbers(~torch.isnan(negative.per_sample()))
        pair = self._objective.pair(
            positive.values,
            negative.values,
            negative.rows,
            negative.num_rows,
            batch["disputed"],
            batch["paired"],
        )
        return pair, self._objective.negative(pair)

    def _tell_positive(self, batch: PairBatch, losses: AnswerLosses, square: Tensor | None) -> None:
        ce = losses.per_sample()
        self.tally.add_branch("positive", losses.values, ce, batch["finding"], square)

    def _tell_negative(
        self,
        batch: PairBatch,
        positive: AnswerLosses,
        losses: AnswerLosses,
        square: Tensor | None,
    ) -> None:
        ce, paired = losses.per_sample(), batch["paired"]
        shown = paired[losses.rows]
        finding = batch["finding"][shown]
        self.tally.add_branch("negative", losses.values[shown], ce[paired], finding, square)
        if self.gaps is not None:
            self._record(batch, (ce - positive.per_sample()).detach().tolist())

    def _tell_pair(self, batch: PairBatch, pair: PairLosses, term: Term, *, skipped: bool) -> None:
        self.tally.add_pair(pair.gap(), term.satisfied[batch["paired"]], skipped=skipped)

    def _keep_company(self, model: nn.Module, batch: Batch) -> None:
        """Meets the processes whose micro-batch has a negative, and adds nothing to theirs."""
        losses: AnswerLosses = model(batch)
        if self._on_any_process(torch.zeros((), device=self.args.device)):
            self._differentiate("negative", 0 * losses.values.sum() + _nothing(losses))
        else:
            _reshard(model)

    def _record(self, batch: PairBatch, gaps: Sequence[float]) -> None:
        for study, shown, gap in zip(self.studies, batch["shown"], gaps, strict=True):
            if self.gaps is not None and shown is not None:
                within = min(_LARGEST_GAP, max(-_LARGEST_GAP, gap))
                self.gaps.append(GapRow(study=study, volume=shown, gap=within))

    def _differentiate(self, branch: Branch, loss: Tensor) -> Tensor | None:
        """Backward pass of one branch; squared norm of its gradient as if it were alone."""
        steps = self.current_gradient_accumulation_steps
        self._branches.begin(branch)
        self.accelerator.backward(loss / steps)
        square = self._branches.square()
        return None if square is None else square * steps**2

    def _on_any_process(self, flag: Tensor) -> bool:
        # Processes meet in every backward pass that sends gradients, and where weights are sharded
        # in every forward pass too, so all must decide alike.
        return bool(self.accelerator.reduce(flag.float(), reduction="sum") > 0)

    def _require_numbers(self, fine: Tensor) -> None:
        if not bool(fine.all()):
            wrong = [name for name, ok in zip(self.studies, fine.tolist(), strict=True) if not ok]
            raise not_a_number(wrong, self.state.global_step)


def _nothing(losses: AnswerLosses) -> Tensor | float:
    """Zero that still reaches the finding queries: processes wait for every weight that learns."""
    return 0.0 if losses.finding_logits is None else 0 * losses.finding_logits.sum()


def _reshard(model: nn.Module) -> None:
    """Ends a forward pass that no backward pass follows, where weights are sharded.

    The outermost weights wait for their backward pass as they were gathered, and would go on
    through the update, which changes the shards alone.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def not_a_number(studies: Sequence[str], step: int) -> CtscribeError:
    """The error for a loss or gradient that is NaN or infinite after ``step`` updates."""
    return CtscribeError(
        "E_NAN",
        f"loss and gradients must be finite, but after {step} updates they are not, on "
        f"{', '.join(studies)}",
    )
