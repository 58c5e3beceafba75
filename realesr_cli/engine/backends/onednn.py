"""The `onednn` backend: RRDBNet and Compact on the CPU through fused convolutions, in blocks.

Three things make it faster than running the module layer by layer: a convolution and its LeakyReLU
are one pass over memory, weights are laid out for the processor once, and a few layers at a time
are computed block by block, so that what they pass on stays in cache. Blocks are what the workers
share: each reads a halo of its neighbors' features of the step before, so nothing but the halo is
computed twice, however large the tile, and the result is that of the whole tile.

The residual trunk and the first and last convolution stay in fp32 whatever the precision: bf16 has
8 significant bits, too few to accumulate an image of 256 levels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from realesr_cli.engine.backends.base import VALUE_BYTES, Availability, output_bytes_per_pixel
from realesr_cli.engine.backends.fused import FusedCompact, FusedRRDBNet, can_fuse
from realesr_cli.engine.forward import Forward
from realesr_cli.engine.workers import get_workers
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture, RRDBNet

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy

CPU_TILES = (1024, 768, 512, 384, 256, 160, 128, 96, 64)
"""Blocks keep the working set in cache whatever the tile, so large tiles only save overlap; 1024
keeps the features of one tile at about a GiB."""


class OneDnnBackend:
    """Runs RRDBNet (not ESRGAN+) and Compact on the CPU in fp32 or bf16."""

    name = "onednn"

    def availability(self, machine: MachineInfo) -> Availability:
        """Return what `can_fuse` finds."""
        if can_fuse():
            return Availability(True, "fused convolutions on the CPU")
        reason = "this build of torch has no fused oneDNN convolution that computes what torch does"
        return Availability(False, reason, "pip install --upgrade torch")

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return bf16 where the processor computes it natively: emulated, it is slower."""
        native = machine.cpu_flags & {"amx_bf16", "avx512_bf16"}
        if native:
            return "bf16", f"the processor has {', '.join(sorted(native))}"
        return "fp32", "the processor has no bf16 arithmetic"

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether there is a fused form of such a network."""
        fused = isinstance(architecture, CompactArchitecture) or (
            isinstance(architecture, RRDBArchitecture) and not architecture.plus
        )
        return fused and device == "cpu" and precision in ("fp32", "bf16")

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return CPU_TILES."""
        return CPU_TILES

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of the feature maps (of RRDBNet three more in fp32) and the result."""
        assert isinstance(architecture, (CompactArchitecture, RRDBArchitecture))
        maps = 2 * VALUE_BYTES[precision]
        if isinstance(architecture, RRDBArchitecture):
            maps += 3 * VALUE_BYTES["fp32"]
        return maps * architecture.features + output_bytes_per_pixel(architecture.scale) + 256

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return 1: the workers share each tile."""
        return 1

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network with its weights packed for the processor."""
        assert isinstance(network, (RRDBNet, Compact))
        return fuse(network, policy.dtype, policy.threads)


def fuse(network: RRDBNet | Compact, dtype: torch.dtype, threads: int) -> Forward:
    """Return the network as a fused Forward in fp32 or bf16, run by so many workers.

    The weights are those of now: later changes of `network`, or of its device, have no effect.
    """
    network = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    workers = get_workers(threads)
    if isinstance(network, RRDBNet):
        compute = FusedRRDBNet(network, dtype, workers).compute
    else:
        compute = FusedCompact(network, dtype, workers).compute

    def forward(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return compute(x.float())

    return forward
