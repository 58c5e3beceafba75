"""ONNX files: a network's graph with its description, and what ONNX Runtime makes of it.

What is written here is compared with the network by `exporter`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from realesr_cli._version import __version__
from realesr_cli.engine.onnx_graph import INPUT, OUTPUT, onnx_model
from realesr_cli.errors import ExportError, MissingDependencyError
from realesr_cli.nets.architecture import Generator
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import model_files
from realesr_cli.weights.checkpoints import METADATA_KEY


def require_onnx() -> None:
    """Raise MissingDependencyError where ONNX files cannot be written and checked here."""
    for name in ("onnx", "onnxruntime"):
        _load_library(name)


def _load_library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX needs the package {name}, which cannot be loaded ({error}): "
            "pip install 'realesr-cli[onnx]'"
        ) from error


def onnx_bytes(
    net: Generator, description: Mapping[str, Any], *, opset: int, half: bool = False
) -> bytes:
    """Return an ONNX file of a network, with its description as properties.

    Raises MissingDependencyError without the package onnx, and ExportError for an operation that
    has no form here.
    """
    onnx = _load_library("onnx")
    model = onnx_model(net, opset=opset, half=half)
    model.producer_name, model.producer_version = "realesr-cli", __version__
    model.doc_string = f"{net.architecture.describe()}. Input: {_input_text(net)}."
    onnx.helper.set_model_props(model, _properties(net, description, opset))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _input_text(net: Generator) -> str:
    channels = net.architecture.in_channels
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")
    return f"float32 {kind} in [0, 1], (batch, {channels}, height, width), any sizes"


def _properties(net: Generator, description: Mapping[str, Any], opset: int) -> dict[str, str]:
    """Return a network's description as an ONNX file's properties, which are all text."""
    sources = description["sources"]
    return {
        "scale": str(description["scale"]),
        "architecture": architecture_from_plain(description["architecture"]).describe(),
        "license": str(description["license"]),
        "source": " + ".join(
            source["name"] if source["share"] == 1 else f"{source['share']:g} {source['name']}"
            for source in sources
        ),
        "source_sha256": " ".join(source["sha256"] for source in sources),
        "tool": str(description["tool"]),
        "opset": str(opset),
        "input": _input_text(net),
        METADATA_KEY: model_files.description_text(description),
    }


def run_onnx(data: bytes, images: Sequence[Tensor]) -> list[Tensor]:
    """Return what ONNX Runtime computes on the CPU for each image (B, C, H, W).

    Raises MissingDependencyError without the package onnxruntime, and ExportError where it refuses
    the file.
    """
    runtime = _load_library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        outputs = [session.run([OUTPUT], {INPUT: one.numpy()})[0] for one in images]
    except Exception as error:  # the runtime's own classes share no base but this
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"ONNX Runtime {runtime.__version__} refuses the exported file: {reason}",
            advice="onnx-refused",
        ) from error
    return [torch.from_numpy(output) for output in outputs]
