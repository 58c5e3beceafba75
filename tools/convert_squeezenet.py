"""Turn the Keras file of SqueezeNet 1.1 into torchvision's layout, for an offline perceptual loss.

    pip install h5py
    python tools/convert_squeezenet.py squeezenet1_1_keras_notop.h5 squeezenet1_1.safetensors
    realesr train ... --set perceptual.backbone=squeezenet1_1 \
        --set perceptual.weights=squeezenet1_1.safetensors

The Keras file expects BGR in 0..255 minus Caffe's means; the first convolution is changed so that
the result takes torchvision's input (RGB in [0, 1], ImageNet mean and deviation) and computes the
same, which is exact because that convolution has no padding.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from realesr_cli.nets.features import MEAN, SQUEEZENET_LAYERS, STD

CAFFE_MEANS_RGB = (123.68, 116.779, 103.939)


def read_keras(path: str) -> dict[str, torch.Tensor]:
    """Weights by the path inside the file, convolutions turned to (out, in, height, width)."""
    # Here, because the arithmetic below is of use without it.
    import h5py

    found: dict[str, torch.Tensor] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            tensor = torch.from_numpy(item[()]).float()
            found[name] = tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def to_torchvision(keras: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under torchvision's names, the input convention folded into the first layer."""
    state = {}
    for layer, index in SQUEEZENET_LAYERS.items():
        parts = [""] if layer == "conv1" else ["squeeze1x1", "expand1x1", "expand3x3"]
        for part in parts:
            prefix = f"{layer}/{part}".rstrip("/") + "/"
            own = {k: v for k, v in keras.items() if k.startswith(prefix)}
            name = f"features.{index}" + (f".{part.replace('squeeze1x1', 'squeeze')}" * bool(part))
            state[f"{name}.weight"] = next(v for v in own.values() if v.ndim == 4)
            state[f"{name}.bias"] = next(v for v in own.values() if v.ndim == 1)
    weight = state["features.0.weight"].flip(1)
    shift = torch.tensor([255 * m - c for m, c in zip(MEAN, CAFFE_MEANS_RGB, strict=True)])
    state["features.0.bias"] = state["features.0.bias"] + (weight.sum((2, 3)) * shift).sum(1)
    state["features.0.weight"] = weight * 255 * torch.tensor(STD).view(1, 3, 1, 1)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def main() -> None:
    """Convert the file named first into the file named second."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    save_file(to_torchvision(read_keras(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
