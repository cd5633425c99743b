"""One objective put together: which term, on what level, on which tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ctscribe.objectives.losses import PairLosses, Scope, token_weights
from ctscribe.objectives.terms import Term, hinge, logistic, paper, simnpo, unlikelihood

Name = Literal["paper", "hinge", "logistic", "simnpo", "unlikelihood"]
Level = Literal["study", "token", "batch"]
Reach = Literal["all", "vision", "language"]
TermOf = Callable[[Tensor, Tensor], Term]
"""(CE⁺, CE⁻) → the term, element by element."""


@final
@dataclass(frozen=True)
class Objective:
    """L = mean over studies of α·CE⁺ + β·term(CE⁺, CE⁻); β is given anew for each update.

    CE⁺ is the mean over all tokens of a study's report. What the term sees depends on `level`:
    study: the mean over the tokens in `scope`; token: each of them, and the terms are averaged;
    batch: the mean of the studies' means over one micro-batch of one process. A study without a
    token in scope has no term.
    """

    term: TermOf
    level: Level
    scope: Scope
    temperature: float
    """Nats, for the scope `weighted`."""
    alpha: float
    reach: Reach
    """Which weights the negative's gradient may change: all, those of the vision tower and its
    merger, or those of the language model."""

    def pair(
        self,
        positive: Float[Tensor, "tokens"],
        negative: Float[Tensor, "tokens"],
        rows: Int[Tensor, "tokens"],
        num_studies: int,
        disputed: Bool[Tensor, "tokens"],
    ) -> PairLosses:
        """Both branches of a micro-batch, with what each token counts.

        Args:
            positive: CE⁺ of each answer token, nats.
            negative: CE⁻ of the same tokens.
            rows: The study each token belongs to.
            num_studies: How many there are.
            disputed: Marks of `pairs.dataset.Marks`.
        """
        positive = positive.detach()
        weights = token_weights(self.scope, positive, negative, disputed, self.temperature)
        return PairLosses(positive, negative, weights, rows, num_studies)

    def negative(self, losses: PairLosses) -> Term:
        """Each study's term, without α and β, and whether it carries no gradient."""
        term = self._on_level(losses)
        left_out = ~losses.has_weight()
        return Term(torch.where(left_out, 0.0, term.values), term.satisfied | left_out)

    def _on_level(self, losses: PairLosses) -> Term:
        if self.level == "token":
            by_token = self.term(losses.positive, losses.negative)
            open_tokens = (~by_token.satisfied).to(losses.positive.dtype)
            return Term(losses.mean(by_token.values), losses.mean(open_tokens) == 0)
        by_study = losses.mean(losses.positive), losses.mean(losses.negative)
        if self.level == "study":
            return self.term(*by_study)
        counted = losses.has_weight()
        if not bool(counted.any()):
            return Term(torch.zeros_like(by_study[0]), ~counted)
        whole = self.term(*(ce[counted].mean() for ce in by_study))
        return Term(whole.values.expand_as(counted), whole.satisfied.expand_as(counted))


def term_of(
    name: Name, *, max_loss: float, margin: float, scale: float, negligible: float
) -> TermOf:
    """The term called `name` in `terms`, its knobs filled in; see there for their units."""
    terms: dict[Name, TermOf] = {
        "paper": lambda _, negative: paper(negative, max_loss),
        "hinge": partial(hinge, margin=margin),
        "logistic": partial(logistic, margin=margin, scale=scale, negligible=negligible),
        "simnpo": lambda _, negative: simnpo(negative, margin, scale, negligible),
        "unlikelihood": lambda _, negative: unlikelihood(negative, negligible),
    }
    return terms[name]


def natural_level(name: Name) -> Level:
    """Where the objective acts in its source: unlikelihood on tokens, the others on reports."""
    return "token" if name == "unlikelihood" else "study"
