"""A recipe in words, one line for every operation that does something."""

from __future__ import annotations

import math

from realesr_cli.degrade.kernels import GENERALIZED, PLATEAUS, Kernel
from realesr_cli.degrade.recipe import (
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
)

_SHAPES = {
    "iso": "Gaussian",
    "aniso": "elliptic Gaussian",
    "generalized_iso": "generalized Gaussian",
    "generalized_aniso": "elliptic generalized Gaussian",
    "plateau_iso": "plateau",
    "plateau_aniso": "elliptic plateau",
}


def describe(recipe: Recipe) -> list[str]:
    """Lines such as `blur     elliptic Gaussian 13x13, sigma 1.21 and 0.44, turned 34 degrees`."""
    lines = []
    for operation in recipe.operations:
        if isinstance(operation, Filter) and operation.kernel.kind == "none":
            continue
        label, text = _words(operation)
        lines.append(f"{label:8} {text}")
    return lines


def _words(operation: Operation) -> tuple[str, str]:
    if isinstance(operation, Sharpen):
        text = f"weight {operation.weight:g}, radius {operation.radius}"
        return "sharpen", f"{text}, threshold {operation.threshold:g}"
    if isinstance(operation, Filter):
        kernel = operation.kernel
        return ("ringing" if kernel.kind == "sinc" else "blur"), _kernel(kernel)
    if isinstance(operation, Scale):
        return "resize", f"to {operation.width}x{operation.height}, {operation.mode}"
    if isinstance(operation, GaussianNoise):
        if operation.mix:
            return "noise", "Gaussian with correlated colors"
        color = "gray" if operation.gray else "colored"
        return "noise", f"{color} Gaussian, sigma {operation.sigma:.1f} of 255"
    if isinstance(operation, PoissonNoise):
        color = "gray" if operation.gray else "colored"
        return "noise", f"{color} Poisson, strength {operation.scale:.2f}"
    if isinstance(operation, Compress):
        real = " by libjpeg" if operation.encoder == "libjpeg" else ""
        return "jpeg", f"quality {operation.quality:.0f}{real}"
    assert isinstance(operation, Round)
    return "round", "to 8 bit"


def _kernel(kernel: Kernel) -> str:
    size = f"{kernel.size}x{kernel.size}"
    if kernel.kind == "sinc":
        return f"sinc {size}, cut-off {kernel.cutoff / math.pi:.2f} of the finest detail"
    text = f"{_SHAPES[kernel.kind]} {size}, sigma {kernel.sigma_x:.2f}"
    if kernel.kind.endswith("aniso"):
        degrees = math.degrees(kernel.theta) % 180
        text += f" and {kernel.sigma_y:.2f}, turned {degrees:.0f} degrees"
    if kernel.kind in GENERALIZED + PLATEAUS:
        text += f", shape {kernel.beta:.2f}"
    return text
