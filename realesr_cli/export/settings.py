"""What a model can be exported to, and how."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option
from realesr_cli.weights.openmodeldb import require_spdx

SUFFIXES = {
    "onnx": ".onnx",
    "safetensors": ".safetensors",
    "pth": ".pth",
    "half": ".safetensors",
    "ncnn": ".param",
}
"""Suffix of each kind of export. ncnn has a second file beside it, the weights: .bin."""

DEFAULT_OPSET = 17


@dataclass(frozen=True)
class ExportSettings:
    """What a model is exported to."""

    to: str = option(
        help="onnx, safetensors (fp32), pth (as other tools read it), half (fp16 safetensors) or "
        "ncnn (.param and .bin for realesrgan-ncnn-vulkan and Upscayl).",
        choices=tuple(SUFFIXES),
    )
    opset: int | None = option(
        None, help=f"Version of the ONNX operators; default: {DEFAULT_OPSET}.", low=13, high=21
    )
    half: bool = option(False, help="fp16 weights, and for ONNX fp16 arithmetic; onnx and ncnn.")
    license: str | None = option(
        None, help="License of a model that states none: an SPDX expression, e.g. MIT."
    )

    def __post_init__(self) -> None:
        check(self)
        require_spdx(self.license)
        if self.to != "onnx" and self.opset is not None:
            raise ConfigError(f"opset: for onnx only, not for {self.to}")
        if self.to not in ("onnx", "ncnn") and self.half:
            raise ConfigError(
                f"half: for onnx and ncnn only, not for {self.to}", advice="half-safetensors"
            )

    @property
    def is_half(self) -> bool:
        """True if the weights are written in fp16."""
        return self.half or self.to == "half"

    @property
    def used_opset(self) -> int | None:
        """Version of the operators of an ONNX file, None for other files."""
        return (self.opset or DEFAULT_OPSET) if self.to == "onnx" else None
