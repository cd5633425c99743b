"""One update of reinforcement learning (GRPO): sample reports, score them, take a gradient step.

For every scan of the update the model samples a group of reports. With A the advantage of a report
in its group (`reward.advantages`) the gradient is that of

    Σ over reports of A · (−log p(report | scan)) / tokens of all reports  +  λ · CE(reference)

This is group-relative policy optimisation (Shao et al., arXiv:2402.03300, Eq. 3) with one gradient
step per batch of samples, so that every probability ratio is 1 and clipping has no effect. In place
of its KL term, λ·CE, the loss that the run was trained with, keeps the wording. All tokens of an
update have the same weight (Yu et al., arXiv:2503.14476, Eq. 8). Averaged within each report, a
token of a long wrong report would be penalised less.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.types import Labels
from ctscribe.learn.model.decoding import Answer, write_reports
from ctscribe.learn.model.finding_queries import label_loss
from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.pairs.collate import Batch, collate_pairs, collate_samples
from ctscribe.learn.pairs.dataset import Pair, Sample, Visual
from ctscribe.learn.reward import Reward, advantages, reward_of
from ctscribe.learn.train.run_log import ReinforceRow
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.learn.train.trainer import not_a_number
from ctscribe.text.prompt import IGNORED, encode_prompt


@final
@dataclass(frozen=True)
class Scan:
    """A scan to sample reports for, and the labels that these are scored against."""

    pair: Pair
    """The scan with its reference report."""
    own: Labels
    other: Labels
    """Labels of another patient."""


@final
class Policy:
    """The model under reinforcement: samples reports and learns from them.

    Forward passes take as many reports at once as in training (``train.pairs_per_device``).
    """

    def __init__(
        self, scorer: ReportScorer, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
    ) -> None:
        self.scorer = scorer
        self._tokenizer = tokenizer
        self.recipe = recipe
        self._learning = {n: w for n, w in scorer.named_parameters() if w.requires_grad}
        rate = recipe.reinforce.learning_rate
        self._optimizer = torch.optim.AdamW(self._learning.values(), lr=rate, weight_decay=0.0)

    def write(
        self, visuals: Sequence[Visual], sample: torch.Generator | None = None
    ) -> list[Answer]:
        """One answer per volume, greedy or, with ``sample``, drawn."""
        self.scorer.eval()
        size, knobs = self.recipe.generate.batch_size, self.recipe
        answers = []
        with self._autocast():
            for start in range(0, len(visuals), size):
                answers += write_reports(
                    self.scorer.qwen,
                    self._tokenizer,
                    visuals[start : start + size],
                    knobs.model.positions,
                    knobs.generate.max_new_tokens,
                    sample=sample,
                )
        return answers

    def update(self, scans: Sequence[Scan], step: int) -> ReinforceRow:
        """Takes update number ``step``, counted from 1; its draws depend on ``step`` and the seed.

        Raises:
            CtscribeError: ``E_NAN`` where a loss or the gradient is not finite.
        """
        knobs = self.recipe.reinforce
        self.scorer.train()
        reference_ce = self._learn_references([scan.pair for scan in scans], step)
        asked = [scan for scan in scans for _ in range(knobs.samples_per_scan)]
        answers = self.write([scan.pair.positive.visual for scan in asked], self._draws(step))
        earned = [
            reward_of(a.text, finished=a.finished, own=scan.own, other=scan.other, config=knobs)
            for scan, a in zip(asked, answers, strict=True)
        ]
        rewards = torch.tensor([each.reward for each in earned], dtype=torch.float64)
        gains = advantages(rewards.view(len(scans), -1))  # [scans, samples]
        self.scorer.train()
        samples = [
            as_sample(scan.pair.positive, answer, self._tokenizer)
            for scan, answer in zip(asked, answers, strict=True)
        ]
        self._learn_from_samples(samples, gains.flatten().tolist())
        norm = float(clip_grad_norm_(self._learning.values(), self.recipe.train.max_grad_norm))
        if not np.isfinite(norm):
            raise _not_a_number([scan.pair for scan in scans], step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        share_telling = float((gains != 0).any(1).double().mean())
        return _row(step, answers, earned).model_copy(
            update={
                "share_telling": share_telling,
                "reference_ce": reference_ce,
                "grad_norm": norm,
            }
        )

    def state(self) -> dict[str, Tensor]:
        """The trainable weights and AdamW's state of each, by name, on the CPU."""
        tensors = {f"weight.{name}": w.detach() for name, w in self._learning.items()}
        for name, weight in self._learning.items():
            for key, value in self._optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Loads what `state` returned."""
        for place, tensor in state.items():
            key, _, name = place.partition(".")
            weight = self._learning[name]
            if key == "weight":
                weight.data.copy_(tensor)
            else:  # AdamW keeps its step counter on the CPU
                on_host = key == "step"
                self._optimizer.state[weight][key] = tensor if on_host else tensor.to(weight)

    def _learn_from_samples(self, samples: Sequence[Sample], gains: Sequence[float]) -> None:
        """Adds the gradient of the policy loss; reports with an advantage of 0 are skipped."""
        num_tokens = sum(int((sample.labels != IGNORED).sum()) for sample in samples)
        counted = [(s, gain) for s, gain in zip(samples, gains, strict=True) if gain != 0]
        size = self.recipe.train.pairs_per_device
        for start in range(0, len(counted), size):
            part = counted[start : start + size]
            losses = self._losses(collate_samples([sample for sample, _ in part], self._pad_id))
            gain = losses.values.new_tensor([gain for _, gain in part])
            policy_loss(losses, gain, num_tokens).backward()  # type: ignore[no-untyped-call]

    def _learn_references(self, pairs: Sequence[Pair], step: int) -> float:
        """Adds the gradient of λ·CE of the reference reports; returns their cross entropy.

        Finding queries that gate the tokens keep their label loss, as in training.

        Raises:
            CtscribeError: ``E_NAN`` where it is not finite, before anything is drawn.
        """
        weight, label_weight = self.recipe.reinforce.reference_weight, 0.0
        if self.recipe.model.slice_attention:
            label_weight = self.recipe.objective.label_weight
        counts = bool(weight or label_weight)
        size, total = self.recipe.train.pairs_per_device, 0.0
        for start in range(0, len(pairs), size):
            batch = collate_pairs(pairs[start : start + size], self._pad_id)
            with torch.set_grad_enabled(counts):
                losses = self._losses(batch["positive"])
            ce, share = losses.per_sample().mean(), losses.num_rows / len(pairs)
            loss = weight * ce
            if label_weight and losses.finding_logits is not None:
                labels = batch["finding_labels"].to(ce.device)
                loss = loss + label_weight * label_loss(losses.finding_logits, labels)
            if counts:
                (loss * share).backward()  # type: ignore[no-untyped-call]
            total += share * float(ce.detach())
        if not np.isfinite(total):
            raise _not_a_number(pairs, step)
        return total

    @property
    def _pad_id(self) -> int:
        return int(self._tokenizer.pad_token_id)

    def _losses(self, batch: Batch) -> AnswerLosses:
        with self._autocast():
            losses: AnswerLosses = self.scorer(batch)
        return losses

    def _autocast(self) -> AbstractContextManager[object]:
        # trainable weights are float32 whatever the activations' dtype
        is_narrow = self.recipe.model.dtype == "bfloat16"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_narrow)

    @property
    def _device(self) -> torch.device:
        return next(self.scorer.parameters()).device

    def _draws(self, step: int) -> torch.Generator:
        """A generator for one update alone, so that a resumed run draws the same."""
        seed = np.random.SeedSequence([self.recipe.reinforce.seed, step]).generate_state(1)[0]
        return torch.Generator(self._device).manual_seed(int(seed))


def as_sample(reference: Sample, answer: Answer, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """The training sample of a drawn answer: the reference's prompt, then the drawn tokens."""
    visual = reference.visual
    prompt = encode_prompt(tokenizer, visual.grid_thw, visual.cue, visual.markers)
    closing = [int(tokenizer.eos_token_id)] if answer.finished else []
    tokens = [*answer.token_ids, *closing]
    ids, labels = torch.tensor(prompt + tokens), torch.tensor([IGNORED] * len(prompt) + tokens)
    return replace(reference, input_ids=ids, labels=labels)


def policy_loss(losses: AnswerLosses, gains: Tensor, num_tokens: int) -> Tensor:
    """Σ of advantage × (−log p(report)), divided by ``num_tokens`` of all reports of the update.

    Descending it ascends the expected reward: E[A·∇log p] = ∇E[r], up to the scaling by each
    group's spread and a factor because a group's mean includes the report itself.
    """
    return (losses.values * gains[losses.rows]).sum() / num_tokens


def _not_a_number(pairs: Sequence[Pair], step: int) -> CtscribeError:
    return not_a_number([pair.positive.study for pair in pairs], step - 1)


def _row(step: int, answers: Sequence[Answer], earned: Sequence[Reward]) -> ReinforceRow:
    logs = [value for answer in answers for value in answer.token_log_probs]
    return ReinforceRow(
        step=step,
        reward=float(np.mean([each.reward for each in earned])),
        own_f1=float(np.mean([each.own_f1 for each in earned])),
        other_f1=float(np.mean([each.other_f1 for each in earned])),
        num_tokens=float(np.mean([len(answer.token_ids) for answer in answers])),
        share_unfinished=float(np.mean([not answer.finished for answer in answers])),
        sampled_ce=-float(np.mean(logs)) if logs else None,
    )
