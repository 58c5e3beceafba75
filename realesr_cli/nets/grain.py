"""Grain: irregular fine detail that a Compact network adds, as strong as its features say.

A network of convolutions that is trained for fidelity gives smooth surfaces, and one trained
against a discriminator must first grow, out of smooth input, something irregular to draw texture
with; small ones grow a mesh instead. Noise as a further input (Karras et al. 2019, section 3.2;
Rakotonirina and Rasoanaivo 2020) would make results random and the network another format. Here the
last channels of every layer are set by hand to carry irregular fields made of the input's own
smallest differences, and the last layer draws them as fixed blots; only how strong they are, pixel
by pixel, is learned. What comes out is a plain Compact network: the same file, the same picture
each time, and nothing where the input is constant or a ramp.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.nets.compact import Compact

FIELDS = 4
"""Irregular fields side by side; as many channels, or twice as many, of each layer carry them."""

MIXES = 3
"""Layers that mix the fields, so that neighbours agree in nothing."""

LEAST_CONVS, LEAST_FEATURES = MIXES + 3, 4 * FIELDS
"""Of a network that can have grain."""

GAIN = 512.0
"""Of the first layer: differences of a code or two end at the limits."""

UNIT = 16 / 255
"""Deviation of the grain at strength 1, before its share."""

START = 0.25
"""Strength before anything is learned."""

MIX_SEED = 2
BLOTS = ((0.9, 1.0, 2), (1.6, 0.6, 9))
"""Softness (a Gaussian's sigma in output pixels), strength and seed of the blots that are added up.

Fine blots alone leave the picture at half its size without texture. Of a hundred pairs of seeds
this one was among the best by NIQE at equal SSIM, on training photographs, and more even from place
to place within an input pixel than those better; it was first met on Kodak24.
"""

SECOND_DIFFERENCES = (
    ((1, -2, 1), (-2, 4, -2), (1, -2, 1)),
    ((-1, 2, -1), (0, 0, 0), (1, -2, 1)),
    ((-1, 0, 1), (2, 0, -2), (-1, 0, 1)),
    ((1, 0, 1), (0, -4, 0), (1, 0, 1)),
)
"""The fields' first filters: nothing for constants and ramps, and exact in half precision."""

LUMA = (0.25, 0.5, 0.25)
"""Near enough to the weights of red, green and blue, and powers of two."""


@dataclass(frozen=True)
class Parts:
    """What a network with grain makes of a batch.

    `picture` and `clean` are (B, 3, H * scale, W * scale), with the grain and without it;
    `strength` is (B, 1, H, W), in `UNIT`.
    """

    picture: Tensor
    clean: Tensor
    strength: Tensor


def carriers(net: Compact) -> list[int]:
    """How many of the last channels of each hidden layer belong to the grain."""
    layers = net.architecture.convs + 1
    early = [2 * FIELDS] * (MIXES + 1)
    return early + [FIELDS] * (layers - len(early) - 1) + [2 * FIELDS]


def can_have_grain(net: nn.Module) -> bool:
    """Whether a network has the layers, channels and activation that grain takes."""
    if not isinstance(net, Compact):
        return False
    a = net.architecture
    return a.activation == "prelu" and a.convs >= LEAST_CONVS and a.features >= LEAST_FEATURES


def has_grain(net: nn.Module) -> bool:
    """Whether grain was sown in a network."""
    if not can_have_grain(net):
        return False
    assert isinstance(net, Compact)
    first = _conv(net, 0).weight
    return torch.equal(first[-FIELDS:].detach().float().cpu(), _first_filters())


@torch.no_grad()
def sow(net: Compact, share: float) -> None:
    """Set the channels that carry grain, and the share of the learned strength that is drawn.

    The channels that the next layer heeds least make room. A network that has grain keeps it, and
    only the share is set. ValueError where `can_have_grain` is false.
    """
    if not can_have_grain(net):
        raise ValueError("grain needs a Compact network with PReLU and some layers")
    if not has_grain(net):
        for layer, width in enumerate(carriers(net)):
            _make_room(net, layer, width)
        dice = random.Random(MIX_SEED)
        for layer, width in enumerate(carriers(net)):
            _carry(net, layer, width, dice)
    last = _conv(net, net.architecture.convs + 1)
    drawn = _last_filters(net.scale) * UNIT * share
    last.weight[:, -2 * FIELDS : -FIELDS] = drawn
    last.weight[:, -FIELDS:] = -drawn


def parts(net: Compact, x: Tensor) -> Parts:
    """The network's picture with and without grain, and the grain's strength; differentiable."""
    convs = net.architecture.convs
    features = net.body[: 2 * convs](x)
    ahead, last = _conv(net, convs), _conv(net, convs + 1)
    own = ahead.weight[-1:, :-FIELDS]
    assert ahead.bias is not None
    strength = F.conv2d(features[:, :-FIELDS], own, ahead.bias[-1:] + 1, padding=1)
    features = net.body[2 * convs : 2 * convs + 2](features)
    width = 2 * FIELDS
    plain = F.conv2d(features[:, :-width], last.weight[:, :-width], last.bias, padding=1)
    drawn = F.conv2d(features[:, -width:], last.weight[:, -width:], padding=1)
    clean = F.pixel_shuffle(plain, net.scale)
    clean = clean + F.interpolate(x, scale_factor=net.scale, mode="nearest")
    return Parts(clean + F.pixel_shuffle(drawn, net.scale), clean, strength)


class WithParts(nn.Module):
    """A Compact network whose forward pass gives `Parts`, for training."""

    def __init__(self, net: Compact) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Parts:
        """(B, 3, H, W) to its parts."""
        return parts(self.net, x)


def with_parts(net: nn.Module) -> WithParts:
    """A network that has grain as one whose forward pass gives `Parts`."""
    assert isinstance(net, Compact)
    return WithParts(net)


def hold_grain(net: Compact) -> None:
    """Before an update: no gradient where the grain is fixed, one and the same for its strength."""
    layers = carriers(net)
    for layer, width in enumerate(layers):
        conv, slope = _conv(net, layer), _slope(net, layer)
        assert conv.bias is not None
        final = layer == len(layers) - 1
        for gradient in (conv.weight.grad, conv.bias.grad):
            if gradient is None:
                continue
            if not final:
                gradient[-width:] = 0
            else:
                if gradient.ndim == 4:
                    gradient[-width:, -FIELDS:] = 0
                gradient[-width:] = gradient[-width:].mean(0, keepdim=True)
        if slope.grad is not None:
            slope.grad[-width:] = 0
    drawn = _conv(net, len(layers)).weight.grad
    if drawn is not None:
        drawn[:, -2 * FIELDS :] = 0


def _conv(net: Compact, layer: int) -> nn.Conv2d:
    found = net.body[2 * layer]
    assert isinstance(found, nn.Conv2d)
    return found


def _slope(net: Compact, layer: int) -> nn.Parameter:
    found = net.body[2 * layer + 1].weight
    assert isinstance(found, nn.Parameter)
    return found


def _make_room(net: Compact, layer: int, width: int) -> None:
    """Order a layer's channels so that the least heeded come last."""
    conv, slope, after = _conv(net, layer), _slope(net, layer), _conv(net, layer + 1)
    assert conv.bias is not None
    heed = after.weight.square().sum((0, 2, 3)) * conv.weight.square().sum((1, 2, 3))
    order = heed.argsort(descending=True, stable=True)
    for tensor in (conv.weight, conv.bias, slope):
        tensor.copy_(tensor[order])
    after.weight.copy_(after.weight[:, order])


def _carry(net: Compact, layer: int, width: int, dice: random.Random) -> None:
    """Set the last `width` channels of a layer, and let nothing else hear them yet.

    A field n within -1..1 travels through the first layers as relu(n + 1) and relu(n - 1), whose
    difference is n + 1 cut off at the limits; after that as itself. The last hidden layer has
    relu(e + n - 1) and relu(e - n - 1) for a strength e: their difference is e where n is 1, -e
    where it is -1, and smaller between.
    """
    conv, slope, after = _conv(net, layer), _slope(net, layer), _conv(net, layer + 1)
    assert conv.bias is not None
    layers = carriers(net)
    conv.weight[-width:] = 0
    after.weight[:, -width:] = 0
    slope[-width:] = 0
    ones = torch.ones(FIELDS)
    eye = torch.eye(FIELDS)
    if layer == 0:
        conv.weight[-width:] = _first_filters().repeat(2, 1, 1, 1)
        conv.bias[-width:] = torch.cat([ones, -ones])
    elif layer <= MIXES:
        mix = _mixing(dice)
        conv.weight[-width:, -width:] = torch.cat([mix, -mix], 1).repeat(2, 1, 1, 1)
        conv.bias[-width:] = torch.cat([ones, -ones])
    elif layer == len(layers) - 1:
        conv.weight[-width:, -FIELDS:, 1, 1] = torch.cat([eye, -eye])
        conv.bias[-width:] = START - 1
    else:
        first = layer == MIXES + 1
        conv.weight[-width:, -layers[layer - 1] :, 1, 1] = (
            torch.cat([eye, -eye], 1) if first else eye
        )
        conv.bias[-width:] = -1.0 if first else 0.0
        slope[-width:] = 1


def _first_filters() -> Tensor:
    """(FIELDS, 3, 3, 3): second differences of luma."""
    taps = torch.tensor(SECOND_DIFFERENCES, dtype=torch.float32)
    return GAIN * taps[:, None] * torch.tensor(LUMA).view(1, 3, 1, 1)


def _mixing(dice: random.Random) -> Tensor:
    """(FIELDS, FIELDS, 3, 3): each field from differences of two places of three fields."""
    mix = torch.zeros(FIELDS, FIELDS, 9)
    for field in range(FIELDS):
        for source in dice.sample(range(FIELDS), 3):
            plus, minus = dice.sample(range(9), 2)
            mix[field, source, plus], mix[field, source, minus] = 1, -1
    return mix.view(FIELDS, FIELDS, 3, 3)


def _last_filters(scale: int) -> Tensor:
    """(3 * scale**2, FIELDS, 3, 3): a blot of 3x3 input pixels for each field, gray.

    Blots have no sum, so that grain changes no mean, and their squares add up to 1 at each of the
    places within an input pixel, so that grain of even strength shows no grid.
    """
    side = 3 * scale
    window = torch.hann_window(side + 2, periodic=False)[1:-1]
    window = (window[:, None] * window).sqrt()
    blots = torch.zeros(FIELDS, side, side)
    for sigma, weight, seed in BLOTS:
        dice = random.Random(seed)
        noise = torch.tensor([dice.gauss(0, 1) for _ in range(blots.numel())])
        soft = _soften(noise.view_as(blots) * window, sigma)
        blots += weight * soft / soft.square().mean().sqrt()
    for _ in range(50):
        blots -= window * (blots.sum((1, 2), keepdim=True) / window.sum())
        places = blots.view(FIELDS, 3, scale, 3, scale).square().sum((0, 1, 3)).sqrt()
        blots /= places.repeat(3, 3)
    # Tap t of the last layer reads input pixel i + t - 1, whose blot reaches back over it.
    taps = blots.view(FIELDS, 3, scale, 3, scale).flip(1, 3)
    taps = taps.permute(2, 4, 0, 1, 3).reshape(scale**2, FIELDS, 3, 3)
    return taps.repeat(3, 1, 1, 1)


def _soften(pictures: Tensor, sigma: float) -> Tensor:
    """(N, H, W) under a Gaussian."""
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    soft = F.conv2d(pictures[:, None], taps, padding=(reach, 0))
    return F.conv2d(soft, taps.transpose(2, 3), padding=(0, reach))[:, 0]
