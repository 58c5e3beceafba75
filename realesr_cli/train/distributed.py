"""Several processes that train one network, as torchrun starts them."""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realesr_cli.errors import DeviceError, TrainingError

MAX_WAIT = timedelta(hours=2)
"""How long processes wait for the first one: for its downloads, its validation, its checkpoints.

NCCL's own limit is 10 minutes, so they wait through gloo.
"""

MEETING_SECONDS = 600.0
"""How long processes wait for the first one to start."""

_MEETING = "realesr/meeting"

_CONNECTION_WORDS = (
    "connection closed", "connection reset", "connection refused", "broken pipe", "gloo", "nccl",
    "socket", "timed out", "timeout", "store",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Rank of this process and number of processes; with one process, methods return at once."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """Process group (gloo) for flags, texts and waiting; None: the default group."""

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

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all must call this at the same point."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.control)
        return bool(raised.item())

    def share(self, value: str) -> str:
        """Return the first process's text in all processes."""
        if self.size == 1:
            return value
        box: list[str] = [value]
        dist.broadcast_object_list(box, 0, group=self.control)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier(group=self.control)

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
        # Views: gradients are the buckets themselves, not a second copy of them.
        settings: Any = {name: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(net, device_ids=ids, **settings)

    def is_connection_error(self, error: BaseException) -> bool:
        """Return whether an error says that another process is gone."""
        if self.size == 1 or not isinstance(error, RuntimeError):
            return False
        text = str(error).lower()
        return isinstance(error, dist.DistError) or any(word in text for word in _CONNECTION_WORDS)


ALONE = World()
"""A single process."""


@contextlib.contextmanager
def join_world(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes started by torchrun; yield the world and this process's device.

    Without torchrun's environment variables the world has one process. CUDA processes get the GPU
    of their LOCAL_RANK, whatever number the device has, and communicate through NCCL; all others
    communicate through gloo. Raises DeviceError for more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield World(), device
        return
    rank = int(os.environ["RANK"])
    cuda = torch.cuda.is_available() and (device == "auto" or device.startswith("cuda"))
    if cuda:
        local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= count:
            raise DeviceError(
                f"process {local} of this machine has no GPU: start at most {count} processes here"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    place: Any = {"rank": rank, "world_size": size, "store": _meet(rank, size)}
    if cuda:
        dist.init_process_group("nccl", **place)
        control = dist.new_group(backend="gloo", timeout=MAX_WAIT)
    else:
        dist.init_process_group("gloo", timeout=MAX_WAIT, **place)
        control = None
    world = World(rank, size, control)
    try:
        yield world, device
        # A process that leaves early closes connections that others still read from.
        world.wait()
    finally:
        dist.destroy_process_group()


def _meet(rank: int, size: int) -> dist.Store | None:
    """Return a new store for the addresses of all processes, hosted by the first one.

    torchrun keeps one store over all restarts, in which processes find the addresses of those that
    were killed (as of torch 2.13). Here the first process announces a store of its own there; the
    others ignore announcements that nobody answers. None: torch's usual way.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = dist.TCPStore(host, port, size, is_master=False)
    if rank == 0:
        store = dist.TCPStore(host, 0, size, is_master=True, wait_for_workers=False)
        token = secrets.token_hex(8)
        store.set(_MEETING, token)
        agent.set(_MEETING, f"{store.port} {token}")
        return store
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        number, token = agent.get(_MEETING).decode().split()
        with contextlib.suppress(dist.DistError):
            store = dist.TCPStore(
                host, int(number), size, is_master=False, timeout=timedelta(seconds=5),
                wait_for_workers=False,
            )  # fmt: skip
            if store.get(_MEETING).decode() == token:
                return store
        if time.monotonic() > deadline:
            raise TrainingError(f"the first process on {host} does not answer")
        time.sleep(0.5)


def sync_gradients(net: nn.Module, *, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Average gradients over all processes in this backward pass, or leave it to a later one."""
    if isinstance(net, DistributedDataParallel) and not enabled:
        result: contextlib.AbstractContextManager[None] = net.no_sync()
        return result
    return contextlib.nullcontext()
