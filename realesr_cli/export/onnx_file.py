"""ONNX files: a network's graph with its description, and what ONNX Runtime makes of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from realesr_cli._version import __version__
from realesr_cli.errors import ExportError, MissingDependencyError
from realesr_cli.export.onnx_graph import INPUT, OUTPUT, onnx_model
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import model_files
from realesr_cli.weights.checkpoints import METADATA_KEY

RANGE = "float32 RGB in [0, 1], (batch, 3, height, width), any sizes"
"""What the input of an exported network is, as the file says it."""


def require_onnx() -> None:
    """Raise MissingDependency where ONNX files cannot be written and checked here."""
    for name in ("onnx", "onnxruntime"):
        _library(name)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"exporting to ONNX needs the package {name}, which cannot be loaded ({error}): "
            "pip install 'realesr-cli[onnx]'"
        ) from error


def onnx_bytes(
    state: Mapping[str, Tensor], description: Mapping[str, Any], opset: int, *, half: bool
) -> bytes:
    """An ONNX file of the network that the description and the tensors (canonical names) are of.

    The description goes into its properties. Raises MissingDependency without the package onnx,
    and ExportError for a kind of network that has no graph.
    """
    onnx = _library("onnx")
    architecture = architecture_from_plain(description["architecture"])
    model = onnx_model(architecture, state, opset=opset, half=half)
    model.producer_name, model.producer_version = "realesr-cli", __version__
    model.doc_string = f"{architecture.describe()}. Input: {RANGE}."
    onnx.helper.set_model_props(model, properties(description, opset))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def properties(description: Mapping[str, Any], opset: int) -> dict[str, str]:
    """A network's description as an ONNX file's properties, which are all text."""
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
        "input": RANGE,
        METADATA_KEY: model_files.description_text(description),
    }


def run_onnx(data: bytes, images: Sequence[Tensor]) -> list[Tensor]:
    """What ONNX Runtime computes on the processor for each image (B, 3, H, W).

    Raises MissingDependency without the package onnxruntime, and ExportError where it refuses the
    file.
    """
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        outputs = [session.run([OUTPUT], {INPUT: one.numpy()})[0] for one in images]
    except Exception as error:  # the runtime's own classes share no base but this
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"ONNX Runtime {runtime.__version__} refuses the exported file ({reason}); a lower "
            "--opset or a newer onnxruntime may help"
        ) from error
    return [torch.from_numpy(output) for output in outputs]
