"""Several processes that train one network, as torchrun starts them."""

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
    """Rank of this process and number of processes; with one process, methods return at once."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports to the user."""
        return self.rank == 0

    def streams(self, accumulate: int) -> tuple[int, ...]:
        """Return the data streams of this process, one per forward pass of a step.

        N processes with one pass each see the same data as one process with N passes.
        """
        return tuple(range(self.rank * accumulate, (self.rank + 1) * accumulate))

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a small tensor over all processes."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is set in any process; all must call this at the same point."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised.item())

    def share(self, value: str) -> str:
        """Return the first process's text in all processes."""
        if self.size == 1:
            return value
        box: list[str] = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return the network with gradients averaged over all processes; itself if alone."""
        if self.size == 1:
            return net
        ids = [device.index] if device.type == "cuda" else None
        # Buffers stay local: broadcasting them would change the spectral norm's vectors between
        # the two forward passes of a discriminator step. They are equal on all ranks anyway.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        # The old name of the parameter warns where the new one exists (torch 2.13).
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        local: Any = {name: False}
        return DistributedDataParallel(net, device_ids=ids, **local)


ALONE = World()
"""A single process."""


@contextlib.contextmanager
def join_world(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes started by torchrun; yield the world and this process's device.

    Without torchrun's environment variables the world has one process. CUDA processes get one GPU
    each and communicate through NCCL, all others through gloo.
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


def sync_gradients(net: nn.Module, *, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Average gradients over all processes in this backward pass, or leave it to a later one."""
    if isinstance(net, DistributedDataParallel) and not enabled:
        result: contextlib.AbstractContextManager[None] = net.no_sync()
        return result
    return contextlib.nullcontext()
