"""The teacher of a distillation: a network whose images another one learns."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from realesr_cli.engine import policy as policies
from realesr_cli.engine.forward import Forward
from realesr_cli.engine.guard import build_forwards
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import RealesrError
from realesr_cli.nets.architecture import Architecture, Generator
from realesr_cli.ops.resize import imresize
from realesr_cli.progress import Progress, no_progress
from realesr_cli.weights.load import open_model, read_model
from realesr_cli.weights.locate import locate

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Teacher(nn.Module):
    """A network as a function of batches, without gradients, as fast as the engine can run it.

    It has neither parameters nor buffers: its weights are packed for the device of the first batch.
    """

    def __init__(self, network: Generator, *, precision: Precision, strength: float) -> None:
        """`strength`: blend with the resized input; 1 is the network's image."""
        super().__init__()
        self.architecture = network.architecture
        self.precision = precision
        self.strength = strength
        # In a tuple, so that torch does not take it for a part of this module.
        self._network = (network,)
        self._forward: Forward | None = None

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale (B, 3, H, W) in [0, 1] to (B, 3, H * scale, W * scale) in [0, 1], float32."""
        if self._forward is None:
            self._forward = self._open(lq.device)
        with torch.no_grad():
            # New tensors: those of inference mode cannot be used in a loss.
            image = self._forward(lq.float()).to(lq.device).clamp(0, 1)
            if self.strength < 1:
                resized = imresize(lq.float(), self.architecture.scale).clamp(0, 1)
                image = torch.lerp(resized, image, self.strength)
        return image

    def _open(self, device: torch.device) -> Forward:
        # The current number of threads: the engine's own choice would hold for the whole process.
        engine = EngineSettings(
            device=str(device), precision=self.precision, threads=torch.get_num_threads()
        )
        machine = policies.machine_info()
        policy = policies.choose(machine, engine, self.architecture)
        return build_forwards(self._network[0], policy, machine).fast


def load_teacher(
    model: str, *, precision: Precision, strength: float, progress: Progress = no_progress
) -> Teacher:
    """Return a model, downloaded if needed, as a teacher; raises what `open_model` raises."""
    try:
        opened = open_model(model, progress=progress)
    except RealesrError as error:
        raise error.prefixed("distill.teacher") from error
    return Teacher(opened.net, precision=precision, strength=strength)


def architecture_of(model: str) -> Architecture | None:
    """Return the architecture of a model, without a download; None if only its file can tell.

    Raises what `locate` and reading the file raise.
    """
    located = locate(model)
    known = located.known_architecture
    if known is not None:
        return known
    present = [part for part in located.parts if part.path is not None]
    return read_model(present[0]).architecture if present else None
