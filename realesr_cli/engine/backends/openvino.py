"""The `openvino` backend: networks on the CPU through OpenVINO, compiled for each tile shape.

What OpenVINO does by default, and what is done about it here: importing it reports a
telemetry event (its telemetry module is replaced before); on a CPU with bf16 it computes fp32
models in bf16 (the precision is always given); it pins threads to cores, the same ones in every
process (switched off); and it grows with every new shape of a dynamic model (shapes are fixed,
and at most MAX_SHAPES are held).
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
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
    from collections.abc import Iterator

    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy
    from realesr_cli.nets.architecture import Generator

TILES = (512, 384, 256, 192, 128, 96, 64)
"""Large tiles, since overlap costs more than what does not fit in cache; but see AMX_TILE."""

AMX_TILE = 192
"""Layers run one after the other over the whole tile. AMX computes them faster than memory delivers
them, so there a tile whose features stay in cache is worth its overlap."""

MAX_SHAPES = 4
"""Tile shapes that stay compiled; an image above the size of a tile needs one."""

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend(LibraryBackend):
    """Runs every architecture on the CPU in fp32, and in bf16 where the processor has it."""

    name = "openvino"
    packages = ("openvino", "onnx")
    fixed_tiles = True

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return bf16 where the processor computes it natively."""
        native = machine.cpu_flags & {"amx_bf16", "avx512_bf16"}
        if native:
            return "bf16", f"the processor has {', '.join(sorted(native))}"
        return "fp32", "the processor has no bf16 arithmetic"

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether the device is the CPU and the precision one of fp32 and bf16.

        Not fp16: OpenVINO would compute in bf16 instead, without saying so.
        """
        return device == "cpu" and precision in _PRECISIONS

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return TILES, with AMX up to AMX_TILE."""
        from realesr_cli.engine.policy import cpu_flags

        largest = AMX_TILE if "amx_bf16" in cpu_flags() else TILES[0]
        return tuple(tile for tile in TILES if tile <= largest)

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return the number of threads: each infer request runs on one."""
        return threads

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of the widest layer, once in another layout, and of the result."""
        features = 2 * VALUE_BYTES[precision] * architecture.values_per_pixel
        return features + output_bytes_per_pixel(architecture.scale)

    def worth_racing(self, machine: MachineInfo, device: str) -> bool:
        """Return whether the processor has AVX-512: elsewhere both use the same kernels."""
        return device == "cpu" and "avx512f" in machine.cpu_flags

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network as a Forward that compiles each new tile shape."""
        from realesr_cli.engine.onnx_graph import onnx_model

        model = onnx_model(cast("Generator", network.eval()), opset=17)
        return _Compiled(model.SerializeToString(), policy)


class _Compiled:
    """A network compiled for up to MAX_SHAPES tile shapes; a Forward.

    Each concurrent call has an infer request of its own, which runs on one thread, so that threads
    never wait for each other.
    """

    def __init__(self, model: bytes, policy: Policy) -> None:
        self._core = load_openvino().Core()
        self._model = model
        self._options = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[policy.precision],
            "NUM_STREAMS": str(policy.tiles_at_once),
            "INFERENCE_NUM_THREADS": str(policy.threads),
            "ENABLE_CPU_PINNING": "NO",
        }
        self._lock = threading.Lock()
        self._shapes: OrderedDict[tuple[int, ...], _Requests] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h * scale, w * scale)."""
        requests = self._compile((1, *x.shape[1:]))
        with requests.take(len(x)) as taken:
            # Requests read these arrays until they are done.
            images = [image.numpy() for image in x.float().contiguous().split(1)]
            for request, image in zip(taken, images, strict=True):
                request.start_async([image], share_inputs=True)
            for request in taken:
                request.wait()
            return torch.cat([torch.from_numpy(r.get_output_tensor().data) for r in taken])

    def _compile(self, shape: tuple[int, ...]) -> _Requests:
        with self._lock:
            if shape not in self._shapes:
                # Dropped first: two sets of buffers need not fit at once.
                while len(self._shapes) >= MAX_SHAPES:
                    self._shapes.popitem(last=False)
                model = self._core.read_model(self._model)
                model.reshape({0: list(shape)})
                self._shapes[shape] = _Requests(self._compile_cached(model))
            self._shapes.move_to_end(shape)
            return self._shapes[shape]

    def _compile_cached(self, model: Any) -> Any:
        """Compile with the cache on disk; without it where the cache is damaged or read-only."""
        try:
            cached = {**self._options, "CACHE_DIR": str(cache_folder())}
            return self._core.compile_model(model, "CPU", cached)
        except RuntimeError:
            return self._core.compile_model(model, "CPU", self._options)


class _Requests:
    """The infer requests of one compiled model; new ones are made when all are in use."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: list[Any] = []

    @contextmanager
    def take(self, count: int) -> Iterator[list[Any]]:
        """Give `count` requests that nobody else uses until the block ends."""
        taken = []
        for _ in range(count):
            try:
                taken.append(self._free.pop())
            except IndexError:
                taken.append(self._compiled.create_infer_request())
        yield taken
        self._free += taken


def load_openvino() -> Any:
    """Return the module openvino, imported without its telemetry."""
    # OpenVINO has a stub of its own for when this import fails.
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def cache_folder() -> Path:
    """Return the folder of compiled models of this version, below the cache folder."""
    from importlib.metadata import version

    from realesr_cli.weights.registry import home

    return home() / "backends" / f"openvino-{version('openvino')}"
