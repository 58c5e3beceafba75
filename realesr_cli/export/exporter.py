"""A model as a file for other programs, which is kept only if it computes what the model does."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from realesr_cli.atomic import atomic_path, write_errors
from realesr_cli.engine.backends.ncnn import load_files
from realesr_cli.engine.ncnn_graph import ncnn_files
from realesr_cli.engine.policy import Policy
from realesr_cli.errors import (
    ConfigError,
    ExportError,
    MissingDependencyError,
    WeightsWriteError,
)
from realesr_cli.export.onnx_file import onnx_bytes, require_onnx, run_onnx
from realesr_cli.export.settings import DEFAULT_OPSET, SUFFIXES, ExportSettings
from realesr_cli.nets.architecture import Generator
from realesr_cli.weights import cache, model_files
from realesr_cli.weights.checkpoints import State
from realesr_cli.weights.load import OpenedModel, load_model
from realesr_cli.weights.provenance import describe_network
from realesr_cli.weights.registry import UNKNOWN

TRIAL_SIZES = ((1, 32, 48), (1, 17, 23), (2, 24, 20))
"""Test images (batch, height, width): a usual one, odd sides, two at a time."""

MAX_DIFFERENCE = 1e-4
"""Largest difference of an output in fp32, of numbers up to 1 (an 8-bit step is 39 times that)."""

MIN_PSNR = 40.0
"""Least agreement of an fp16 export, in dB with peak 1."""

_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Parity:
    """How an exported model agrees with the network on one test image of that size.

    `max_abs` is the largest difference of an output number, `psnr` in dB with peak 1, None where
    all numbers are equal. For an ONNX file in fp16 they are those of fp16 arithmetic.
    """

    batch: int
    height: int
    width: int
    max_abs: float
    psnr: float | None


@dataclass(frozen=True)
class ExportResult:
    """A file that was written and checked; `opset` is None for what is not ONNX."""

    path: Path
    to: str
    half: bool
    opset: int | None
    bytes: int
    sha256: str
    parity: tuple[Parity, ...]
    description: dict[str, Any]


def check_target(target: Path, settings: ExportSettings, *, overwrite: bool = False) -> None:
    """Raise ConfigError where a name does not fit what the file will hold, or is taken."""
    suffix = SUFFIXES[settings.to]
    if target.suffix.lower() != suffix:
        raise ConfigError(f"{target}: expected a name that ends in {suffix} for {settings.to}")
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name a file in it")
    for file in list_files(target, settings):
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} already exists", advice="overwrite")


def list_files(target: Path, settings: ExportSettings) -> tuple[Path, ...]:
    """Return the files that an export writes: `target`, and for ncnn the weights beside it."""
    return (target, target.with_suffix(".bin")) if settings.to == "ncnn" else (target,)


def require_library(settings: ExportSettings) -> None:
    """Raise MissingDependencyError where the library that writes or checks an export is missing."""
    if settings.to == "onnx":
        require_onnx()
    if settings.to == "ncnn" and importlib.util.find_spec("ncnn") is None:
        raise MissingDependencyError(
            "checking ncnn files needs the package ncnn, which is not installed: "
            "pip install 'realesr-cli[ncnn]'"
        )


def export_model(
    opened: OpenedModel, target: Path, settings: ExportSettings, *, overwrite: bool = False
) -> ExportResult:
    """Write a model as `target`, in the form that `settings` gives, and compare the two.

    Scale, architecture, license, and names and SHA-256 of the sources are kept in the file, except
    for ncnn, whose files have no place for them. It takes its place only if it gives on three test
    images what the network gives: the same numbers (safetensors, pth), within `MAX_DIFFERENCE`
    (onnx, ncnn), or within `MIN_PSNR` (fp16).

    Raises ConfigError for a target that is not possible and for a license where another is known,
    ExportError where results differ or fp16 cannot hold a weight, MissingDependencyError where
    ONNX or ncnn is not installed, and WeightsWriteError; nothing is left behind then.
    """
    check_target(target, settings, overwrite=overwrite)
    require_library(settings)
    state = {k: v.detach().cpu().float() for k, v in opened.net.state_dict().items()}
    if settings.is_half:
        _check_half_range(state, opened.name)
    description = _describe(opened, settings)
    net = model_files.build_network(state, opened.architecture)
    channels = opened.architecture.in_channels
    images = [trial_image((batch, channels, *size)) for batch, *size in TRIAL_SIZES]
    expected = _outputs(net, images)
    files = list_files(target, settings)
    with ExitStack() as stack:
        parts = [stack.enter_context(_write_checked(file)) for file in files]
        _write(parts, net, description, settings)
        found = _read_back(parts, net, images, settings)
        parity = tuple(map(_compare, images, expected, found))
        _check_parity(parity, expected, settings, opened.name)
    return ExportResult(
        path=target,
        to=settings.to,
        half=settings.is_half,
        opset=settings.used_opset,
        bytes=sum(file.stat().st_size for file in files),
        sha256=cache.sha256_of(target),
        parity=parity,
        description=description,
    )


def _describe(opened: OpenedModel, settings: ExportSettings) -> dict[str, Any]:
    """Return the description that the file will hold."""
    description = describe_network(opened.architecture, opened.sources)
    description["dtype"] = "float16" if settings.is_half else "float32"
    known, given = description["license"], settings.license
    if given is not None and given != known:
        if UNKNOWN not in known:
            raise ConfigError(
                f"license: {opened.name} is under {known}, which {given} cannot replace"
            )
        description["license"] = given
    return description


def _write(
    parts: Sequence[Path],
    net: Generator,
    description: Mapping[str, Any],
    settings: ExportSettings,
) -> None:
    part, state = parts[0], net.state_dict()
    if settings.to == "ncnn":
        text, weights = ncnn_files(net, half=settings.half)
        part.write_text(text)
        parts[1].write_bytes(weights)
    elif settings.to == "onnx":
        opset = settings.opset or DEFAULT_OPSET
        part.write_bytes(onnx_bytes(net, description, opset=opset, half=settings.half))
    elif settings.to == "pth":
        model_files.save_pth(part, {"params_ema": state}, description)
    elif settings.to == "half":
        model_files.save_safetensors(part, {k: v.half() for k, v in state.items()}, description)
    else:
        model_files.save_safetensors(part, state, description)


def _read_back(
    parts: Sequence[Path], net: Generator, images: Sequence[Tensor], settings: ExportSettings
) -> list[Tensor]:
    """Return what the file gives for the images, read as another program would."""
    part = parts[0]
    if settings.to == "ncnn":
        policy = Policy("cpu", "fp32", "ncnn", 0, 0, 1, 1)
        forward = load_files(part, parts[1], net.architecture, policy)
        return [forward(image) for image in images]
    if settings.to != "onnx":
        return _outputs(load_model(part), images)
    found = run_onnx(part.read_bytes(), images)
    if not settings.half:
        return found
    # Where ONNX Runtime has no fp16 convolutions it computes in fp32 throughout, which shows that
    # the graph is right, but not what fp16 costs.
    rounded = {k: v.half().float() for k, v in net.state_dict().items()}
    same = model_files.build_network(rounded, net.architecture)
    for one, other in zip(found, _outputs(same, images), strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, 1e-3, 1e-4):
            return found
    with _HalfArithmetic():
        return _outputs(same, [image.half().float() for image in images])


class _HalfArithmetic(TorchFunctionMode):
    """Rounds the result of every operation to fp16, as a GPU does that adds in fp32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            return result.half().float()
        return result


def _outputs(net: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [net(one) for one in images]


def trial_image(shape: tuple[int, ...]) -> Tensor:
    """Return an image (batch, channels, height, width) in [0, 1] with slopes, edges and noise.

    The same for the same shape.
    """
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(height * width)
    slope = torch.linspace(0, 1, height)[:, None] * torch.linspace(1, 0, width)
    edges = ((torch.arange(height)[:, None] // 5 + torch.arange(width) // 7) % 2).float()
    noise = torch.rand(shape, generator=generator)
    shares = torch.rand((batch, channels, 1, 1), generator=generator)
    return (0.4 * slope + 0.4 * edges * shares + 0.2 * noise).clamp(0, 1)


def _compare(given: Tensor, expected: Tensor, found: Tensor) -> Parity:
    batch, _, height, width = given.shape
    if found.shape != expected.shape:
        return Parity(batch, height, width, math.inf, -math.inf)
    difference = (expected.double() - found.double()).abs()
    error = float(difference.square().mean())
    psnr = None if error == 0 else -10 * math.log10(error) if math.isfinite(error) else -math.inf
    return Parity(batch, height, width, float(difference.max()), psnr)


def _check_parity(
    parity: Sequence[Parity], expected: Sequence[Tensor], settings: ExportSettings, name: str
) -> None:
    """Raise ExportError where an export does not compute what the network does."""
    # An untrained network's outputs, and so the differences, may be of any size.
    size = max(1.0, *(float(one.abs().max()) for one in expected))
    allowed = MAX_DIFFERENCE * size if settings.to in ("onnx", "ncnn") else 0.0
    for one in parity:
        if settings.is_half:
            good = one.psnr is None or one.psnr + 20 * math.log10(size) >= MIN_PSNR
        else:
            good = one.max_abs <= allowed
        if not good:
            psnr = "exact" if one.psnr is None else f"PSNR {one.psnr:.1f} dB"
            hint = "; fp16 is too coarse for it, use fp32" if settings.is_half else ""
            raise ExportError(
                f"{name}: exported to {settings.to} it gives another image than the model "
                f"({one.width}x{one.height}: largest difference {one.max_abs:.3g}, {psnr}){hint}; "
                "nothing was written"
            )


def _check_half_range(state: State, name: str) -> None:
    """Raise ExportError naming the first tensor that fp16 cannot hold."""
    for key, tensor in state.items():
        largest = float(tensor.abs().max())
        if largest > _LARGEST_HALF:
            raise ExportError(
                f"{name}: tensor {key!r} holds {largest:.3g}, and fp16 ends at {_LARGEST_HALF:g}; "
                "export it in fp32"
            )


@contextmanager
def _write_checked(target: Path) -> Iterator[Path]:
    """Give a temporary file that becomes `target` when the block ends well; else no trace stays."""
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        with write_errors(target, WeightsWriteError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as part:
                yield part
    except BaseException:
        for folder in new:
            with suppress(OSError):  # another process may have put a file there
                folder.rmdir()
        raise
