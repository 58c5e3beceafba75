"""Several processes training one network, as torchrun starts them, behind a few plain questions."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is; alone, everything here is free."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and does the talking."""
        return self.rank == 0

    def streams(self, accumulate: int) -> tuple[int, ...]:
        """The data streams of this process, one for each forward pass of a step.

        N processes with one pass each see what one process with N passes does.
        """
        return tuple(range(self.rank * accumulate, (self.rank + 1) * accumulate))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a small tensor over all processes."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is raised in some process; all must ask at the same point."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised.item())

    def share(self, value: str) -> str:
        """The first process's text, in all of them."""
        if self.size == 1:
            return value
        box: list[str] = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, net: nn.Module, device: torch.device) -> nn.Module:
        """The network with its gradients averaged over all processes; itself when alone."""
        if self.size == 1:
            return net
        ids = [device.index] if device.type == "cuda" else None
        # Buffers stay local: broadcasting them would change the spectral norm's vectors between
        # the two forward passes of a discriminator's step. They are equal on all ranks anyway.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        # The old name of the same thing warns where the new one is known (torch 2.13).
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        local: Any = {name: False}
        return DistributedDataParallel(net, device_ids=ids, **local)


ALONE = World()
"""One process, as usual."""


@contextlib.contextmanager
def joined_world(device: str) -> Iterator[tuple[World, str]]:
    """This process's place among those torchrun started, and the device it shall use.

    Alone, unless the environment says otherwise. CUDA processes get one GPU each and talk through
    NCCL, all others through gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield World(), device
        return
    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


def synced_only(net: nn.Module, *, sync: bool) -> contextlib.AbstractContextManager[None]:
    """Average gradients in this backward pass, or leave that to the last one of a step."""
    if isinstance(net, DistributedDataParallel) and not sync:
        result: contextlib.AbstractContextManager[None] = net.no_sync()
        return result
    return contextlib.nullcontext()
