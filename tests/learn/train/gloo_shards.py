"""The command line on processes without GPUs, among which accelerate shards all the same.

It shards on GPUs only: asked for FSDP, `AcceleratorState` obeys where the process group is a GPU's
and leaves gloo's processes on the CPU with whole models. Here it is told that they shard too. From
there on all code is the one that runs on GPUs: accelerate's, the Trainer's and ours.

With DIE_AT set, the processes are gone without a word when so many updates are done.
"""

import os
from unittest.mock import patch

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import TrainerControl, TrainerState, TrainingArguments

from ctscribe.cli.app import main
from ctscribe.learn.train import arguments
from ctscribe.learn.train.callback import RunCallback

_initialise, _begin = AcceleratorState.__init__, RunCallback.on_step_begin


def _shard_on_any_device(
    self: AcceleratorState,
    *args: object,
    fsdp_plugin: FullyShardedDataParallelPlugin | None = None,
    **others: object,
) -> None:
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **others)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


def _die(
    self: RunCallback,
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
    **others: object,
) -> None:
    if state.global_step == int(os.environ["DIE_AT"]):
        self.trainer.accelerator.wait_for_everyone()  # the main process may still be sealing
        os._exit(9)
    _begin(self, args, state, control, **others)


if __name__ == "__main__":
    patch.object(AcceleratorState, "__init__", _shard_on_any_device).start()
    patch.object(arguments, "_shards_here", lambda: True).start()
    if "DIE_AT" in os.environ:
        patch.object(RunCallback, "on_step_begin", _die).start()
    main()
