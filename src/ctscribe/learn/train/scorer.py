"""What is trained: the model, asked for a report's cross entropy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.learn.model.checkpoint import add_adapters
from ctscribe.learn.model.finding_queries import attached
from ctscribe.learn.model.qwen import AnswerLosses, answer_losses
from ctscribe.learn.pairs.build import patient_numbers
from ctscribe.learn.pairs.collate import Batch, collate_pairs
from ctscribe.learn.pairs.dataset import PairDataset
from ctscribe.learn.pairs.heter import draw_strangers


@final
@dataclass(frozen=True)
class Validation:
    """Means over scans, nats per answer token."""

    own_ce: float
    """Given the scan itself; chooses the checkpoint."""
    other_ce: float
    """Given another patient's scan."""

    @property
    def gap(self) -> float:
        """How much worse a wrong scan makes the report: 0 for a model that does not look."""
        return self.other_ce - self.own_ce


def validation_pairs(studies: Sequence[StudyRow]) -> list[PairRow]:
    """One row pair per scan: its first volume, then another patient's, the same for every run.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients to validate on.
    """
    firsts: dict[str, StudyRow] = {}
    for study in sorted(studies, key=lambda study: study.volume_name):
        firsts.setdefault(study.scan_id, study)
    scans = list(firsts.values())
    num_patients = len({scan.patient_id for scan in scans})
    if num_patients < 2:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"validation needs two patients or more, but it has {num_patients}",
        )
    rows = []
    for scan, other in zip(scans, draw_strangers(patient_numbers(scans), seed=0), strict=True):
        name, shown = scan.volume_name, scans[other].volume_name
        rows.append(PairRow(study=name, role="positive", volume=name))
        rows.append(PairRow(study=name, role="negative", volume=shown))
    return rows


@torch.no_grad()
def validate(
    scorer: nn.Module,
    pairs: PairDataset,
    *,
    pad_id: int,
    batch_size: int,
    process: int,
    num_processes: int,
    add_up: Callable[[Tensor], Tensor],
) -> Validation:
    """Scores all pairs, each process its share.

    Args:
        scorer: Gives `qwen.AnswerLosses`, as `ReportScorer` does.
        pairs: Those of `validation_pairs`.
        pad_id: The tokenizer's padding token.
        batch_size: Studies scored at once.
        process: Number of this process.
        num_processes: How many share the work.
        add_up: Sums a tensor over the processes.
    """
    scorer.eval()
    device = next(scorer.parameters()).device
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # where weights are sharded the processes meet in every forward pass: each makes as many, and
    # who has run out of pairs repeats the first ones, uncounted
    mine = range(process, num_processes * -(-len(pairs) // num_processes), num_processes)
    for at in range(0, len(mine), batch_size):
        numbers = mine[at : at + batch_size]
        batch = collate_pairs([pairs[number % len(pairs)] for number in numbers], pad_id)
        counted = torch.tensor([number < len(pairs) for number in numbers], device=device)
        branches = (batch["positive"], batch["negative"])
        sums += torch.stack(
            [scorer(branch).per_sample()[counted].double().sum() for branch in branches if branch]
        )
    scorer.train()
    own_ce, other_ce = (add_up(sums) / len(pairs)).tolist()
    return Validation(own_ce, other_ce)


@final
class ReportScorer(nn.Module):
    """Cross entropy of reports given volumes; the module that gradients are synchronised on.

    Its state dict holds the trainable weights alone, each once: the frozen ones are in the
    starting checkpoint, and a checkpoint that is written often should be small.

    Args:
        qwen: With the weights that shall learn requiring gradients.
        positions: Mode of `qwen.position_ids`.
    """

    accepts_loss_kwargs = False
    """Read by the Trainer: it shall divide each micro-batch's mean by the accumulation steps."""
    _keys_to_ignore_on_save = None
    """Read by the Trainer where a checkpoint does not hold every weight."""
    _no_split_modules = ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock")
    """Read by accelerate: what is gathered and given back as one where weights are sharded."""

    def __init__(
        self, qwen: Qwen2_5_VLForConditionalGeneration, positions: Literal["index", "depth"]
    ) -> None:
        super().__init__()
        self.qwen = qwen
        self.positions: Literal["index", "depth"] = positions
        self.register_state_dict_post_hook(_keep_trainable)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_only_trainable)  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> AnswerLosses:
        """Nats of every answer token of each study."""
        return answer_losses(self.qwen, batch, self.positions)


def _keep_trainable(
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
) -> None:
    trainable = _trainable(module)
    for name in [*state]:
        if name.removeprefix(prefix) not in trainable:
            del state[name]


def _miss_only_trainable(module: nn.Module, keys: Any) -> None:  # noqa: ANN401 - torch's own
    trainable = _trainable(module)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name in trainable]


def _trainable(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def choose_trainable(
    qwen: Qwen2_5_VLForConditionalGeneration,
    *,
    tuning: Literal["full", "lora"],
    freeze_tower: bool,
    freeze_merger: bool,
    lora_r: int,
    lora_alpha: int,
) -> None:
    """Lets the asked-for weights learn, in place.

    Weights that learn are kept in float32 whatever the activations are: an update of 2e-5 of a
    weight is lost in bfloat16's eight bits.

    Args:
        qwen: The model.
        tuning: full: all weights; lora: adapters on the language model. Finding queries learn
            in both.
        freeze_tower: Whether the vision tower's blocks stay as they are.
        freeze_merger: Whether the layers between them and the language model do.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters, in units of rank.
    """
    if tuning == "lora":
        add_adapters(qwen, r=lora_r, alpha=lora_alpha)
    else:
        qwen.requires_grad_(True)
    qwen.model.visual.requires_grad_(not freeze_tower)
    qwen.model.visual.merger.requires_grad_(not freeze_merger)
    queries = attached(qwen)
    if queries is not None:
        queries.requires_grad_(True)
    for weight in qwen.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()
