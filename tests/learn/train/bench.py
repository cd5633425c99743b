"""A model and a few pairs, whose gradients are taken by the trainer and by hand."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.finding_queries import label_loss
from ctscribe.learn.objective import negative_term, pair_losses
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import Pair, PairDataset
from ctscribe.learn.train.arguments import training_arguments
from ctscribe.learn.train.epochs import EpochsInOrder
from ctscribe.learn.train.scorer import (
    ReportScorer,
    choose_trainable,
    enable_checkpointing,
    learning_rates,
)
from ctscribe.learn.train.stage import learner, visual_source
from ctscribe.learn.train.trainer import PairTrainer

Gradients = dict[str, Tensor]


class Catch(TrainerCallback):  # type: ignore[misc]  # untyped in the library
    """Keeps the first update's gradients and stops."""

    def __init__(self) -> None:
        self.gradients: Gradients = {}

    def on_pre_optimizer_step(
        self, args: object, state: object, control: TrainerControl, model: nn.Module, **_: object
    ) -> None:
        self.gradients = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
        control.should_training_stop = True


class Bench:
    """A fresh model and the first eight pairs."""

    def __init__(self, prepared: Prepared, start: Path, pairs: Path, recipe: Recipe) -> None:
        rows = read_rows(pairs, PairRow)
        self.recipe, self.pairs = recipe, pairs
        self.qwen, self.tokenizer = learner(start, recipe)
        choose_trainable(self.qwen, recipe.model)
        if recipe.train.gradient_checkpointing:
            enable_checkpointing(self.qwen, "cheap")
        visual = visual_source(self.qwen, prepared, rows, recipe)
        self.dataset = PairDataset(prepared.by_name, rows, self.tokenizer, visual, 4096)
        self.scorer = ReportScorer(self.qwen, "depth")
        self.module: nn.Module = self.scorer
        self.trainer: PairTrainer

    def trained(self, folder: Path) -> Gradients:
        """What the trainer accumulates."""
        catch = Catch()
        self.trainer = trainer = PairTrainer(
            objective=self.recipe.objective,
            rates=learning_rates(self.recipe.train),
            model=self.module,
            args=training_arguments(folder, self.recipe),
            train_dataset=self.order(),
            data_collator=partial(
                collate_pairs,
                pad_id=self.tokenizer.pad_token_id,
                sharing=self.recipe.pairs.shares_prompts,
            ),
            callbacks=[catch],
        )
        trainer.train()
        return catch.gradients

    def order(self) -> EpochsInOrder[Pair]:
        couples = self.dataset.couples() if self.recipe.pairs.shares_prompts else []
        return EpochsInOrder(self.dataset, 1, 0, couples=couples)

    def by_hand(self, num_pairs: int) -> tuple[Gradients, Tensor]:
        """Both branches in one graph, and the negatives' cross entropy."""
        order = self.order()
        items = [order[number] for number in range(num_pairs)]
        batch = collate_pairs(items, self.tokenizer.pad_token_id)
        assert batch["negative"] is not None
        negative, positive = self.scorer(batch["negative"]), self.scorer(batch["positive"])
        objective = self.recipe.objective
        pair = pair_losses(
            objective,
            positive.values,
            negative.values,
            positive.rows,
            num_pairs,
            batch["disputed"],
        )
        term = negative_term(objective, pair)
        loss = objective.alpha * positive.per_sample().mean() + objective.beta * term.values.mean()
        if objective.label_weight:
            labels = label_loss(positive.finding_logits, batch["finding_labels"])
            loss = loss + objective.label_weight * labels
        names, learning = zip(
            *((n, p) for n, p in self.scorer.named_parameters() if p.requires_grad), strict=True
        )
        return dict(zip(names, torch.autograd.grad(loss, learning), strict=True)), (
            negative.per_sample().detach()
        )
