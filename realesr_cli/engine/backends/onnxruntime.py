"""The `onnxruntime` backend: networks through whatever build of ONNX Runtime is installed.

On the CPU it is no faster than torch. Its other builds reach devices that torch does not: DirectML
on Windows, CoreML on a Mac. Such a device computes where the device `cpu` is chosen, since torch
knows no other; CUDA where a CUDA device is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from realesr_cli.engine.backends.base import (
    VALUE_BYTES,
    LibraryBackend,
    output_bytes_per_pixel,
)
from realesr_cli.engine.forward import Forward
from realesr_cli.nets.architecture import Architecture

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy
    from realesr_cli.nets.architecture import Generator

TILES = (256, 192, 128, 96, 64)

_BESIDE_TORCH = ("DmlExecutionProvider", "CoreMLExecutionProvider", "CPUExecutionProvider")


class OnnxRuntimeBackend(LibraryBackend):
    """Runs every architecture: in fp32, and in fp16 on CUDA."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx")
    distributions = (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime-windowsml",
    )
    fixed_tiles = True

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return fp16 on CUDA, else fp32."""
        return ("fp32", "the CPU, DirectML or CoreML") if gpu is None else ("fp16", "CUDA")

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether it has this precision on the device."""
        if device == "cpu":
            return precision == "fp32"
        return device.startswith("cuda") and precision in ("fp32", "fp16")

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return TILES."""
        return TILES

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return 1: its threads share each tile."""
        return 1

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of the widest layer, twice, and of the result."""
        features = 2 * VALUE_BYTES[precision] * architecture.values_per_pixel
        return features + output_bytes_per_pixel(architecture.scale)

    def worth_racing(self, machine: MachineInfo, device: str) -> bool:
        """Return whether the build has more than the CPU."""
        return sys.platform == "darwin" or bool(set(self.versions()) - {"onnxruntime"})

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network as a Forward."""
        import onnxruntime

        from realesr_cli.engine.onnx_graph import INPUT, OUTPUT, onnx_model

        half = policy.precision == "fp16"
        model = onnx_model(cast("Generator", network.eval()), opset=17, half=half)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = policy.threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=_providers(onnxruntime, policy.device)
        )

        def forward(x: Tensor) -> Tensor:
            (y,) = session.run([OUTPUT], {INPUT: x.float().contiguous().numpy()})
            return torch.from_numpy(y)

        return forward


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    """Return the execution providers to use, best first; RuntimeError where CUDA is missing."""
    available = onnxruntime.get_available_providers()
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" not in available:
            raise RuntimeError("this build of ONNX Runtime has no CUDA")
        options = {"device_id": int(device.partition(":")[2] or 0)}
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    return [provider for provider in _BESIDE_TORCH if provider in available]
