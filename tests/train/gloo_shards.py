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

from ctscribe.cli.app import main
from ctscribe.train import sharding
from ctscribe.train.beta import BetaControl

_initialise, _at = AcceleratorState.__init__, BetaControl.at


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


def _die(self: BetaControl, step: int) -> float:
    if step == int(os.environ["DIE_AT"]):
        os._exit(9)
    return _at(self, step)


if __name__ == "__main__":
    patch.object(AcceleratorState, "__init__", _shard_on_any_device).start()
    patch.object(sharding, "_shards_here", lambda: True).start()
    if "DIE_AT" in os.environ:
        patch.object(BetaControl, "at", _die).start()
    main()
