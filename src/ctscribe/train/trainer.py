"""One override of the Trainer: how a pair becomes a loss."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Trainer

from ctscribe.errors import CtscribeError
from ctscribe.model.slice_attention import label_loss
from ctscribe.objectives import is_capped, paper_negative
from ctscribe.pairs.collate import PairBatch
from ctscribe.train.tally import Tally


@final
class PairTrainer(Trainer):  # type: ignore[misc]  # untyped in the library
    """Trains on α·CE(positive) − β·min(CE(negative), max_loss).

    The negative is differentiated first and on its own, so the graphs of the two branches are
    never held together; a micro-batch whose negatives are all capped has no backward pass
    through them. The gradients add up to those of `objectives.paper`.

    Args:
        alpha: Weight of the positive.
        beta: Weight of the negative; at 0 the negative is not looked at.
        max_loss: Cap on each study's negative, nats per token.
        label_weight: λ of the 18 labels' cross entropy by the finding queries of the positive.
        **trainer: As for the Trainer.
    """

    loss_is_scaled_for_ga = False
    """`compute_loss` returns a micro-batch's mean, for the Trainer to divide by their number."""

    def __init__(
        self,
        *,
        alpha: float,
        beta: float,
        max_loss: float,
        label_weight: float = 0.0,
        **trainer: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**trainer)
        self._alpha, self._beta, self._max_loss = alpha, beta, max_loss
        self._label_weight = label_weight
        self.tally = Tally(self.args.device)
        self.studies: list[str] = []
        """Of the micro-batch at work, for errors."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: PairBatch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Float[Tensor, ""]:
        """Differentiates the negative's term, returns the positive's.

        Raises:
            CtscribeError: ``E_NAN`` naming the study whose loss is not a number.
        """
        self.studies = inputs["studies"]
        self._learn_negative(model, inputs)
        positive_ce = model(inputs["positive"])
        self._require_numbers(positive_ce, torch.isfinite(positive_ce))
        self.tally.add_positive(positive_ce)
        loss: Float[Tensor, ""] = self._alpha * positive_ce.mean()
        if self._label_weight:
            logits = self.accelerator.unwrap_model(model).finding_logits
            labels = inputs["finding_labels"].to(logits.device)
            loss = loss + self._label_weight * label_loss(logits, labels)
        return loss

    def _learn_negative(self, model: nn.Module, inputs: PairBatch) -> None:
        if inputs["negative"] is None or self._beta == 0:
            return
        # Gradients stay on this process until the positive's backward sends both.
        with self.accelerator.no_sync(model):
            negative_ce = model(inputs["negative"])
            self._require_numbers(negative_ce, ~torch.isnan(negative_ce))
            capped = is_capped(negative_ce, self._max_loss)
            is_needed = self._on_any_process(~capped.all())
            if is_needed:
                term = paper_negative(negative_ce, self._beta, self._max_loss)
                self.accelerator.backward(term / self.current_gradient_accumulation_steps)
        self.tally.add_negative(negative_ce, capped, skipped=not is_needed)

    def _on_any_process(self, flag: Tensor) -> bool:
        # Sharded models meet in every backward pass, so all processes must decide alike.
        return bool(self.accelerator.reduce(flag.float(), reduction="sum") > 0)

    def _require_numbers(self, ce: Tensor, fine: Tensor) -> None:
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
