"""The two discriminators of the field: U-Net with spectral norm, and VGG style with batch norm."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.errors import CheckpointFormatError
from realesr_cli.nets.architecture import shapes_of
from realesr_cli.nets.detection import first_difference

SLOPE = 0.2
"""Negative slope of every LeakyReLU in both networks."""


class SpectralConv2d(nn.Module):
    """A bias-free convolution whose weight is divided by its largest singular value.

    The weight counts as a matrix (out, in * k * k). Its singular vectors are buffers, updated by
    one power iteration in every forward of training mode and by none in evaluation (Miyato et al.
    2018, algorithm 1). The state has the names of published discriminator files: `weight_orig`,
    `weight_u`, `weight_v`.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, eps: float = 1e-12):
        super().__init__()
        self.updates = True
        """If forward passes in training mode update the vectors; see `hold_spectral_norms`."""
        self.stride = stride
        self.padding = 1
        self.eps = eps
        conv = nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False)
        self.weight_orig = nn.Parameter(conv.weight.detach())
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0, eps=eps))
        v = torch.randn(inputs * kernel * kernel)
        self.register_buffer("weight_v", F.normalize(v, dim=0, eps=eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H', W')."""
        return F.conv2d(x, self.normalized_weight(), stride=self.stride, padding=self.padding)

    def normalized_weight(self) -> Tensor:
        """Return the weight over its spectral norm; in training mode after a power iteration."""
        # fp16 is too coarse for the norm, so the few products here stay in fp32.
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)
            if self.training and self.updates:
                self.iterate_power()
            # Clones, because a later forward changes the buffers before this one's backward.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, torch.mv(matrix, v))

    @torch.no_grad()
    def iterate_power(self) -> None:
        """Run one power iteration on the singular vectors."""
        matrix = self.weight_orig.detach().flatten(1)
        v = F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=self.eps)
        self.weight_v.copy_(v)
        u = F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=self.eps)
        self.weight_u.copy_(u)


@contextlib.contextmanager
def hold_spectral_norms(net: nn.Module | None, *, iterations: int = 1) -> Iterator[None]:
    """Run power iterations on the spectral norms of a network now, and none inside the block.

    Every forward pass inside then uses the same weights, so that a batch in several passes, or on
    several devices, computes what the whole batch in one would. Does nothing in evaluation mode.
    """
    modules = net.modules() if net is not None and net.training else ()
    layers = [layer for layer in modules if isinstance(layer, SpectralConv2d)]
    for layer in layers:
        for _ in range(iterations):
            layer.iterate_power()
        layer.updates = False
    try:
        yield
    finally:
        for layer in layers:
            layer.updates = True


class UNetDiscriminator(nn.Module):
    """Real-ESRGAN's discriminator: one logit per pixel (Wang et al. 2021, section 3.4).

    Input (B, 3, H, W) with H and W multiples of 8, RGB in [0, 1]; output (B, 1, H, W). Skips are
    added after the activation. 4,376,897 parameters at 64 features.
    """

    def __init__(self, *, channels: int = 3, features: int = 64):
        super().__init__()
        n = features
        self.conv0 = nn.Conv2d(channels, n, 3, 1, 1)
        self.conv1 = SpectralConv2d(n, n * 2, kernel=4, stride=2)
        self.conv2 = SpectralConv2d(n * 2, n * 4, kernel=4, stride=2)
        self.conv3 = SpectralConv2d(n * 4, n * 8, kernel=4, stride=2)
        self.conv4 = SpectralConv2d(n * 8, n * 4, kernel=3, stride=1)
        self.conv5 = SpectralConv2d(n * 4, n * 2, kernel=3, stride=1)
        self.conv6 = SpectralConv2d(n * 2, n, kernel=3, stride=1)
        self.conv7 = SpectralConv2d(n, n, kernel=3, stride=1)
        self.conv8 = SpectralConv2d(n, n, kernel=3, stride=1)
        self.conv9 = nn.Conv2d(n, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a logit of being real per pixel; ValueError unless sides are multiples of 8."""
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise ValueError(f"sides must be multiples of 8, got {tuple(x.shape[-2:])}")
        x0 = _act(self.conv0(x))
        x1 = _act(self.conv1(x0))
        x2 = _act(self.conv2(x1))
        x3 = _upsample(_act(self.conv3(x2)))
        x4 = _upsample(_act(self.conv4(x3)) + x2)
        x5 = _upsample(_act(self.conv5(x4)) + x1)
        x6 = _act(self.conv6(x5)) + x0
        result: Tensor = self.conv9(_act(self.conv8(_act(self.conv7(x6)))))
        return result


class VGGDiscriminator(nn.Module):
    """The discriminator of SRGAN and ESRGAN: one logit per image of a fixed size.

    Input (B, 3, size, size) with size 128 (14,499,401 parameters at 64 features) or 256; output
    (B, 1). Batch statistics are used in training mode (Ledig et al. 2017, figure 4).
    """

    def __init__(self, *, channels: int = 3, features: int = 64, size: int = 128):
        super().__init__()
        if size not in (128, 256):
            raise ValueError(f"size must be 128 or 256, got {size}")
        self.size = size
        n = features
        self.conv0_0 = nn.Conv2d(channels, n, 3, 1, 1)
        self.conv0_1 = nn.Conv2d(n, n, 4, 2, 1, bias=False)
        self.bn0_1 = nn.BatchNorm2d(n)
        widths = [n, n * 2, n * 4, n * 8, n * 8] + [n * 8] * (size == 256)
        self.levels = len(widths) - 1
        for i in range(1, len(widths)):
            before, width = widths[i - 1], widths[i]
            self.add_module(f"conv{i}_0", nn.Conv2d(before, width, 3, 1, 1, bias=False))
            self.add_module(f"bn{i}_0", nn.BatchNorm2d(width))
            self.add_module(f"conv{i}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
            self.add_module(f"bn{i}_1", nn.BatchNorm2d(width))
        self.linear1 = nn.Linear(n * 8 * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of being real, one per image; ValueError for any other size."""
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"expects {self.size}x{self.size}, got {tuple(x.shape[-2:])}")
        x = _act(self.conv0_0(x))
        x = _act(self.bn0_1(self.conv0_1(x)))
        for i in range(1, self.levels + 1):
            for j in (0, 1):
                conv, norm = self.get_submodule(f"conv{i}_{j}"), self.get_submodule(f"bn{i}_{j}")
                x = _act(norm(conv(x)))
        result: Tensor = self.linear2(_act(self.linear1(x.flatten(1))))
        return result


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


_PARAMETRIZED = re.compile(r"(.*)\.parametrizations\.weight\.(original|0\._u|0\._v)$")
_CLASSIC = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}


def rename_spectral_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the spectral-norm tensors of either style of torch to those of published files.

    `conv1.parametrizations.weight.original`, `.0._u`, `.0._v` become `conv1.weight_orig`,
    `.weight_u`, `.weight_v`; a leading `module.` is dropped; everything else is kept.
    """
    result = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        found = _PARAMETRIZED.match(name)
        result[f"{found[1]}.{_CLASSIC[found[2]]}" if found else name] = value
    return result


def load_discriminator(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a discriminator's tensors (either spectral-norm style) into a network, strictly.

    Raises CheckpointFormatError naming the first tensor that does not fit.
    """
    own, given = net.state_dict(), rename_spectral_norms(state)
    difference = first_difference(shapes_of(given), shapes_of(own))
    if difference:
        raise CheckpointFormatError(
            f"not the weights of this {type(net).__name__}: {difference}; expected a discriminator "
            "of the same kind and size"
        )
    net.load_state_dict(given)
