"""The command line on processes without GPUs, among which accelerate shards all the same.

It shards on GPUs only: asked for FSDP, `AcceleratorState` obeys where the process group is a GPU's
and leaves gloo's processes on the CPU with whole models. Here it is told that they shard too. From
there on all code is the one that runs on GPUs: accelerate's, the Trainer's and ours.
"""

from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

from ctscribe.cli.app import main

_initialise = state.AcceleratorState.__init__


def _shard_on_any_device(self: Any, *args: Any, fsdp_plugin: Any = None, **others: Any) -> None:
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **others)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _shard_on_any_device
    main()
