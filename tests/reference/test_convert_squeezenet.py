"""The converted stand-in of VGG19 computes what the Keras network does, evaluated here in numpy."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import torch

from realesr_cli.nets.features import SqueezeNetFeatures

TOOL = Path(__file__).parents[2] / "tools" / "convert_squeezenet.py"

CAFFE_MEANS_BGR = np.array([103.939, 116.779, 123.68])

Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def keras_weights() -> Weights:
    """Random kernels (height, width, in, out) and biases under the Keras network's names."""
    rng = np.random.default_rng(5)

    def made(size: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        kernel = rng.normal(0, (size * size * inputs) ** -0.5, (size, size, inputs, outputs))
        return kernel.astype(np.float32), rng.normal(0, 1, outputs).astype(np.float32)

    found = {"conv1": made(3, 3, 64)}
    widths = ((64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192))
    widths += ((384, 48, 192), (384, 64, 256), (512, 64, 256))
    for number, (inputs, squeeze, expand) in enumerate(widths, 2):
        found[f"fire{number}/squeeze1x1"] = made(1, inputs, squeeze)
        found[f"fire{number}/expand1x1"] = made(1, squeeze, expand)
        found[f"fire{number}/expand3x3"] = made(3, squeeze, expand)
    return found


def conv(x: np.ndarray, weights: tuple[np.ndarray, np.ndarray], *, stride: int = 1, pad: int = 0):
    """(H, W, in) to (H', W', out), cross-correlation as both libraries have it."""
    kernel, bias = weights
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    size = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (0, 1))
    return np.einsum("hwcij,ijco->hwo", windows[::stride, ::stride], kernel) + bias


def pool(x: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((3, 4))


def fire(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    small = np.maximum(conv(x, weights[f"{name}/squeeze1x1"]), 0)
    sides = conv(small, weights[f"{name}/expand1x1"])
    return np.concatenate([sides, conv(small, weights[f"{name}/expand3x3"], pad=1)], -1)


def test_converted_features_are_those_of_the_keras_network() -> None:
    weights = keras_weights()
    rgb = np.random.default_rng(1).integers(0, 256, (35, 35, 3)).astype(np.float64)
    wanted = {"conv1": conv(rgb[..., ::-1] - CAFFE_MEANS_BGR, weights["conv1"], stride=2)}
    wanted["fire2"] = fire(pool(np.maximum(wanted["conv1"], 0)), weights, "fire2")
    wanted["fire3"] = fire(np.maximum(wanted["fire2"], 0), weights, "fire3")
    # As `read_keras` returns them: kernels turned, names with what Keras appended.
    held: dict[str, torch.Tensor] = {}
    for name, (kernel, bias) in weights.items():
        held[f"{name}/{name}_b"] = torch.from_numpy(bias)
        held[f"{name}/uniform"] = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    state = runpy.run_path(str(TOOL))["to_torchvision"](held)
    SqueezeNetFeatures(["fire9"]).load(state)
    net = SqueezeNetFeatures(["conv1", "fire2", "fire3"])
    net.load(state)
    found = net(torch.from_numpy(rgb / 255).permute(2, 0, 1).unsqueeze(0).float())
    for name, features in wanted.items():
        np.testing.assert_allclose(
            found[name][0].permute(1, 2, 0), features, rtol=1e-4, atol=1e-3, err_msg=name
        )
