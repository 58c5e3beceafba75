"""From a network and a policy to the Forward that computes its tiles."""

from __future__ import annotations

import copy
import threading

import torch
from torch import Tensor, nn

from realesr_cli.engine.backends.onednn import fuse, fused_available
from realesr_cli.engine.guard import Forward, Forwards
from realesr_cli.engine.policy import Policy


def make_forwards(net: nn.Module, policy: Policy) -> Forwards:
    """The chosen way to compute a tile and its fallbacks; the given network is left as it is."""
    unshuffle = int(getattr(net.architecture, "unshuffle", 1))
    scale = int(net.scale)  # type: ignore[arg-type]
    on_cpu = policy.device == "cpu"
    fp32 = policy.precision == "fp32"
    return Forwards(
        fast=_forward(net, policy.device, policy.dtype, policy.backend),
        exact=None if fp32 else _Late(net, policy.device, policy.backend),
        cpu=None if on_cpu else _Late(net, "cpu", "fused"),
        scale=scale,
        multiple=unshuffle,
    )


def _forward(net: nn.Module, device: str, dtype: torch.dtype, backend: str) -> Forward:
    if backend == "fused" and fused_available():
        fused = fuse(net, dtype)
        if fused is not None:
            return fused
    return ModuleForward(net, device, dtype)


class ModuleForward:
    """The module itself on any device, channels-last, in the given format."""

    def __init__(self, net: nn.Module, device: str, dtype: torch.dtype) -> None:
        clone = copy.deepcopy(net).eval().requires_grad_(False)
        self._net = clone.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = torch.device(device)
        self._dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) float32 to (B, 3, h * scale, w * scale) float32 on the network's device."""
        with torch.inference_mode():
            x = x.to(self._device, self._dtype, memory_format=torch.channels_last)
            result: Tensor = self._net(x).float()
            return result


class _Late:
    """An fp32 fallback, built when it is first needed: most runs never do."""

    def __init__(self, net: nn.Module, device: str, backend: str) -> None:
        self._arguments = (net, device, backend)
        self._lock = threading.Lock()
        self._forward: Forward | None = None

    def __call__(self, x: Tensor) -> Tensor:
        with self._lock:
            if self._forward is None:
                net, device, backend = self._arguments
                self._forward = _forward(net, device, torch.float32, backend)
        return self._forward(x)


def with_tta(forward: Forward) -> Forward:
    """The mean over the 8 flips and rotations of the square (geometric self-ensemble).

    Source: Timofte et al., "Seven ways to improve example-based single image super resolution"
    (2016), section 3.5.
    """

    def averaged(x: Tensor) -> Tensor:
        total: Tensor | None = None
        for turn in range(8):
            y = _turned_back(forward(_turned(x, turn)), turn)
            total = y if total is None else total.add_(y)
        assert total is not None
        return total.div_(8)

    return averaged


def _turned(x: Tensor, turn: int) -> Tensor:
    x = x.flip(3) if turn & 1 else x
    x = x.flip(2) if turn & 2 else x
    return (x.transpose(2, 3) if turn & 4 else x).contiguous()


def _turned_back(y: Tensor, turn: int) -> Tensor:
    y = y.transpose(2, 3) if turn & 4 else y
    y = y.flip(2) if turn & 2 else y
    return (y.flip(3) if turn & 1 else y).clone()
