"""ImageNet features by layer name, before the activation, for the perceptual loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.errors import CheckpointFormatError, ConfigError
from realesr_cli.text import did_you_mean, format_value

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def _vgg19_layers() -> dict[str, int]:
    """Return torchvision's index in `features` by `convB_N`; a block ends with a pooling layer."""
    found, index = {}, 0
    for block, (_, convs) in enumerate(_VGG19, 1):
        for conv in range(1, convs + 1):
            found[f"conv{block}_{conv}"] = index
            index += 2
        index += 1
    return found


VGG19_LAYERS = _vgg19_layers()
"""Names of VGG19's convolutions and their torchvision index: conv1_2 is 2, conv5_4 is 34."""

SQUEEZENET_LAYERS = {"conv1": 0} | {
    f"fire{i}": index for i, index in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)
}
"""Names of SqueezeNet 1.1's modules and their torchvision index."""

_FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)} | {
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}


class Features(nn.Module):
    """A frozen feature network: RGB (B, 3, H, W) in [0, 1] to {layer name: features before ReLU}.

    Only the layers up to the deepest requested one are built; the state has torchvision's names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[str], known: Mapping[str, int]):
        super().__init__()
        if not layers:
            raise ConfigError("layers: expected at least one feature layer")
        for name in layers:
            if name not in known:
                near = did_you_mean(name, list(known))
                raise ConfigError(
                    f"layers: expected one of {', '.join(known)}, got {format_value(name)}{near}"
                )
        self.taps = {known[name]: name for name in layers}
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.features = nn.ModuleDict()

    def freeze(self) -> None:
        """Switch to evaluation, without gradients for the weights."""
        self.eval()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return features by layer name, in network order."""
        x = (x - self.mean) / self.std
        found = {}
        for key, layer in self.features.items():
            x = layer(x)
            if int(key) in self.taps:
                found[self.taps[int(key)]] = x
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load these layers from a torchvision state. Raises CheckpointFormatError."""
        own = self.state_dict()
        for key, tensor in own.items():
            if key not in state or state[key].shape != tensor.shape:
                raise CheckpointFormatError(
                    f"not the weights of {type(self).__name__}: expected {key} of shape "
                    f"{tuple(tensor.shape)}, as torchvision has it"
                )
        self.load_state_dict({key: state[key].float() for key in own})


class VGG19Features(Features):
    """VGG19 (Simonyan & Zisserman 2015), features before ReLU (Wang et al. 2018, section 3.3).

    Through conv5_4 it has 20,024,384 parameters. Weights: torchvision's vgg19-dcbb9e9d.
    """

    def __init__(self, layers: Sequence[str]):
        super().__init__(layers, VGG19_LAYERS)
        inputs, index = 3, 0
        for width, convs in _VGG19:
            for _ in range(convs):
                self.features[str(index)] = nn.Conv2d(inputs, width, 3, 1, 1)
                # Never in place: it would overwrite the features that are returned.
                self.features[str(index + 1)] = nn.ReLU()
                inputs, index = width, index + 2
            self.features[str(index)] = nn.MaxPool2d(2, 2)
            index += 1
        self.features = _truncate(self.features, max(self.taps))
        self.freeze()


class Fire(nn.Module):
    """SqueezeNet's module: squeeze by 1x1, expand by 1x1 and 3x3, concatenated, before the ReLU."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the previous module's ReLU first, so that outputs are features before the ReLU."""
        x = F.relu(self.squeeze(F.relu(x)))
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)


class SqueezeNetFeatures(Features):
    """SqueezeNet 1.1 (Iandola et al. 2016): a small replacement of VGG19.

    The names and shapes are torchvision's squeezenet1_1; 722,496 parameters through fire9.
    """

    def __init__(self, layers: Sequence[str]):
        super().__init__(layers, SQUEEZENET_LAYERS)
        self.features["0"] = nn.Conv2d(3, 64, 3, 2)
        for index, (inputs, squeeze, expand) in _FIRES.items():
            if index in (3, 6, 9):
                # Pooling and ReLU commute, so pooling features before the ReLU changes nothing.
                self.features[str(index - 1)] = nn.MaxPool2d(3, 2, ceil_mode=True)
            self.features[str(index)] = Fire(inputs, squeeze, expand)
        self.features = _truncate(self.features, max(self.taps))
        self.freeze()


def _truncate(features: nn.ModuleDict, last: int) -> nn.ModuleDict:
    kept = {key: layer for key, layer in features.items() if int(key) <= last}
    return nn.ModuleDict(kept)


BACKBONES: Mapping[str, type[VGG19Features] | type[SqueezeNetFeatures]] = {
    "vgg19": VGG19Features,
    "squeezenet1_1": SqueezeNetFeatures,
}
"""Feature networks by the name a configuration gives them."""
