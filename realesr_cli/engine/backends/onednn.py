"""The `onednn` backend: RRDBNet and Compact on the CPU through fused convolutions, in strips.

Three things make it faster than running the module layer by layer: a convolution and its LeakyReLU
are one pass over memory, weights are laid out for the processor once, and dense blocks are computed
strip by strip, so that their growing stack of features (192 channels) stays in cache. Each strip
reads 5 extra rows per side; every convolution computes only the rows its successor needs, so the
overhead is a few percent and the result equals processing the whole image.

The residual trunk and the first and last convolution stay in fp32 whatever the precision: bf16 has
8 significant bits, too few to accumulate an image of 256 levels.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.engine.backends.base import VALUE_BYTES, Availability, output_bytes_per_pixel
from realesr_cli.engine.forward import Forward
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.rrdbnet import (
    RESIDUAL_SCALE,
    SLOPE,
    DenseBlock,
    RRDBArchitecture,
    RRDBNet,
    unshuffle_any_size,
)

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy

CPU_TILES = (512, 384, 256, 160, 128, 96, 64)
"""Strips keep the working set in cache whatever the tile, so large tiles only save overlap; 512
keeps the features of one tile below half a GiB."""

STRIP_BYTES = 6 * 2**20
"""Features of one strip: what the caches of a few cores hold. Measured flat from 4 to 12 MiB."""

GROUP = 8
"""Layers of a Compact network computed together on a strip: more reread more border rows."""

TAIL_SIDE = 192
"""Side of the pieces of the layers after the blocks, in output pixels."""

TAIL_RADIUS = 2
"""Input pixels that those layers see to each side, rounded up."""

DENSE_RADIUS = 5
"""Rows to each side that a row of a dense block's output depends on: five 3x3 convolutions."""

_ONE = [1, 1]
_SIDES = [0, 1]
_CHANNELS_LAST = torch.channels_last
_OPS: Any = torch.ops.mkldnn


class OneDnnBackend:
    """Runs RRDBNet (not ESRGAN+) and Compact on the CPU in fp32 or bf16."""

    name = "onednn"

    def availability(self, machine: MachineInfo) -> Availability:
        """Return what `can_fuse` finds."""
        if can_fuse():
            return Availability(True, "fused convolutions on the CPU")
        reason = "this build of torch has no fused oneDNN convolution that computes what torch does"
        return Availability(False, reason, "pip install --upgrade torch")

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return bf16 where the processor computes it natively: emulated, it is slower."""
        native = machine.cpu_flags & {"amx_bf16", "avx512_bf16"}
        if native:
            return "bf16", f"the processor has {', '.join(sorted(native))}"
        return "fp32", "the processor has no bf16 arithmetic"

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether there is a fused form of such a network."""
        fused = isinstance(architecture, CompactArchitecture) or (
            isinstance(architecture, RRDBArchitecture) and not architecture.plus
        )
        return fused and device == "cpu" and precision in ("fp32", "bf16")

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return CPU_TILES."""
        return CPU_TILES

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of two fp32 trunks, three feature maps, the result, and the strips."""
        assert isinstance(architecture, (CompactArchitecture, RRDBArchitecture))
        maps = 2 * 4 + 3 * VALUE_BYTES[precision]
        return maps * architecture.features + output_bytes_per_pixel(architecture.scale) + 256

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network with its weights packed for the processor."""
        assert isinstance(network, (RRDBNet, Compact))
        return fuse(network, policy.dtype)


@functools.cache
def can_fuse() -> bool:
    """Return whether oneDNN's fused convolution can be called here and computes what torch does."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 336).view(1, 8, 6, 7).contiguous(memory_format=_CHANNELS_LAST)
    conv = nn.Conv2d(8, 8, 3, 1, 1)
    with torch.inference_mode():
        try:
            y = FusedConv.pack(conv, torch.float32)(x, SLOPE)
        except (AttributeError, RuntimeError, TypeError):
            # These are operators that torch's own compiler uses; they may move in a new release.
            return False
        return torch.allclose(y, F.leaky_relu(conv(x), SLOPE), atol=1e-5)


def fuse(network: RRDBNet | Compact, dtype: torch.dtype) -> Forward:
    """Return the network as a fused Forward in fp32 or bf16.

    The weights are those of now: later changes of `network`, or of its device, have no effect.
    """
    network = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    fused = (
        FusedRRDBNet(network, dtype)
        if isinstance(network, RRDBNet)
        else FusedCompact(network, dtype)
    )

    def forward(x: Tensor) -> Tensor:
        # Image by image: one keeps all cores busy.
        with torch.inference_mode():
            return torch.cat([fused.compute(image) for image in x.float().split(1)])

    return forward


@dataclass(frozen=True)
class FusedConv:
    """One 3x3 convolution with its weights laid out for the processor."""

    weight: Tensor
    bias: Tensor

    @staticmethod
    def pack(conv: nn.Conv2d, dtype: torch.dtype, gain: float = 1.0) -> FusedConv:
        """Lay out a convolution, multiplied by `gain` in fp32, in `dtype`."""
        assert conv.bias is not None
        weight = (conv.weight.detach().float() * gain).to(dtype)
        packed = _OPS._reorder_convolution_weight(weight, _ONE, _ONE, _ONE, 1, None)
        return FusedConv(packed, (conv.bias.detach().float() * gain).to(dtype))

    def __call__(self, x: Tensor, slope: float | None = None, padding: list[int] = _ONE) -> Tensor:
        """Convolve (1, C, h, w), channels-last, in the packed dtype; then LeakyReLU if `slope`.

        `padding` [0, 1] drops the first and last row instead of assuming zeros around them.
        """
        attribute, scalars = ("none", []) if slope is None else ("leaky_relu", [slope])
        result: Tensor = _OPS._convolution_pointwise(
            x, self.weight, self.bias, padding, _ONE, _ONE, 1, attribute, scalars, ""
        )
        return result


def choose_strip_rows(width: int, bytes_per_pixel: int) -> int:
    """Return the rows of a strip that fills STRIP_BYTES; at least 8, as each rereads 10 more."""
    return max(8, STRIP_BYTES // (width * bytes_per_pixel))


class FusedRRDBNet:
    """An RRDBNet with packed weights; safe to use from several threads."""

    def __init__(self, network: RRDBNet, dtype: torch.dtype) -> None:
        self.architecture = network.architecture
        self._dtype = dtype
        self._first = network.conv_first
        self._blocks = [
            [self._pack_dense(rdb) for rdb in block.children() if isinstance(rdb, DenseBlock)]
            for block in network.body
        ]
        self._body = FusedConv.pack(network.conv_body, dtype)
        ups = (network.get_submodule(name) for name in network.up_names)
        self._ups = [FusedConv.pack(up, dtype) for up in ups]  # type: ignore[arg-type]
        self._hr = FusedConv.pack(network.conv_hr, dtype)
        self._last = network.conv_last

    def _pack_dense(self, rdb: DenseBlock) -> list[FusedConv]:
        """Pack the five convolutions, with the residual factor in the weights of the last one."""
        convs = (rdb.conv1, rdb.conv2, rdb.conv3, rdb.conv4)
        last = FusedConv.pack(rdb.conv5, self._dtype, RESIDUAL_SCALE)
        return [*(FusedConv.pack(conv, self._dtype) for conv in convs), last]

    def compute(self, x: Tensor) -> Tensor:
        """Enlarge (1, in, h, w) to (1, out, h * scale, w * scale), both float32."""
        height, width = x.shape[-2:]
        a = self.architecture
        x = unshuffle_any_size(x, a.unshuffle).contiguous(memory_format=_CHANNELS_LAST)
        first = F.conv2d(x, self._first.weight, self._first.bias, padding=1)
        # `trunk` is the running sum in fp32, `features` a copy in the working dtype, which is what
        # convolutions read. A copy also where that is fp32, since they are not updated together.
        trunk = first.clone()
        features = trunk.to(self._dtype, copy=True)
        stack = (a.features + 4 * a.growth) * features.element_size()
        rows = choose_strip_rows(trunk.shape[3], stack)
        # Reused by every block: fresh memory costs as much as a convolution, since the system
        # hands out zeroed pages one page fault at a time.
        inner, spare = torch.empty_like(trunk), torch.empty_like(features)
        for block in self._blocks:
            inner.copy_(trunk)
            for dense in block:
                _run_dense_block(features, spare, inner, dense, rows)
                features, spare = spare, features
            trunk.add_(inner, alpha=RESIDUAL_SCALE)
            features.copy_(trunk)
        del trunk, inner, spare
        first += self._body(features)
        result = self._compute_tail(first.to(self._dtype))
        return result[..., : height * a.scale, : width * a.scale]

    def _compute_tail(self, features: Tensor) -> Tensor:
        """Compute everything after the blocks, in square pieces that fit in cache.

        Their maps are up to 16 times as large as those of the blocks. Each piece reads TAIL_RADIUS
        more features to each side and drops what those give.
        """
        height, width = features.shape[2:]
        a = self.architecture
        factor = a.scale * a.unshuffle
        side = max(8, TAIL_SIDE // factor)
        result = torch.empty(1, a.out_channels, height * factor, width * factor)
        # The last convolution is in fp32. Its input is widened into one buffer: a new tensor for
        # every piece costs 30 times as much as the conversion itself.
        buffer = torch.empty(a.features * ((side + 2 * TAIL_RADIUS) * factor) ** 2)
        for top in range(0, height, side):
            for left in range(0, width, side):
                above, before = min(top, TAIL_RADIUS), min(left, TAIL_RADIUS)
                piece = features[:, :, top - above : top + side + TAIL_RADIUS]
                piece = piece[..., left - before : left + side + TAIL_RADIUS]
                for up, step in zip(self._ups, a.up_factors, strict=True):
                    piece = up(F.interpolate(piece, scale_factor=step, mode="nearest"), SLOPE)
                piece = self._hr(piece, SLOPE)
                exact = torch.as_strided(buffer, piece.shape, piece.stride()).copy_(piece)
                piece = F.conv2d(exact, self._last.weight, self._last.bias, padding=1)
                piece = piece[:, :, above * factor :, before * factor :]
                target = result[:, :, top * factor :, left * factor :]
                target = target[:, :, : side * factor, : side * factor]
                target.copy_(piece[:, :, : target.shape[2], : target.shape[3]])
        return result


def _run_dense_block(
    x: Tensor, result: Tensor, trunk: Tensor, convs: list[FusedConv], rows: int
) -> None:
    """Add a dense block's residual to `trunk` (fp32), and write the sum to `result`, cast.

    `x` is `trunk` in the working dtype. `result` is another tensor, since the next strip still
    reads rows of `x` above its own.
    """
    height = x.shape[2]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        # `stack` holds rows [first, ...) of everything computed so far, along the channels.
        first = max(0, top - DENSE_RADIUS)
        stack = x[:, :, first : min(height, bottom + DENSE_RADIUS)]
        for i, conv in enumerate(convs):
            # Each convolution after this one needs one more row to each side of the strip.
            reach = DENSE_RADIUS - 1 - i
            low, high = max(0, top - reach), min(height, bottom + reach)
            y = _convolve_rows(conv, stack, (low - first, high - first), SLOPE if reach else None)
            if reach:
                stack = torch.cat((stack[:, :, low - first : high - first], y), 1)
                first = low
        strip = trunk[:, :, top:bottom]
        strip += y
        result[:, :, top:bottom] = strip


def _convolve_rows(
    conv: FusedConv, x: Tensor, wanted: tuple[int, int], slope: float | None
) -> Tensor:
    """Compute rows [wanted) of a convolution of `x`.

    `x` holds one row more on each side, except at an end of the image, where zeros are assumed.
    oneDNN pads both ends alike, so at one end of the image only the zeros are added beforehand.
    """
    above = 1 - wanted[0]
    below = 1 - (x.shape[2] - wanted[1])
    if above == below:
        return conv(x, slope, [above, 1])
    return conv(F.pad(x, (0, 0, above, below)), slope, _SIDES)


# A convolution, the slope fused into it, and PReLU's slopes per channel, applied after it.
FusedLayer = tuple[FusedConv, float | None, Tensor | None]


class FusedCompact:
    """A Compact network with packed weights; safe to use from several threads."""

    def __init__(self, network: Compact, dtype: torch.dtype) -> None:
        self._scale = network.scale
        self._dtype = dtype
        layers = list(network.body)
        self._first, self._first_activation = layers[0], layers[1]
        self._hidden: list[FusedLayer] = [
            (FusedConv.pack(conv, dtype), *_read_slopes(act, dtype))  # type: ignore[arg-type]
            for conv, act in zip(layers[2:-1:2], layers[3:-1:2], strict=True)
        ]
        self._last = FusedConv.pack(layers[-1], dtype)  # type: ignore[arg-type]

    def compute(self, x: Tensor) -> Tensor:
        """Enlarge (1, in, h, w) to (1, out, h * scale, w * scale), both float32."""
        y = x.contiguous(memory_format=_CHANNELS_LAST)
        y = self._first_activation(self._first(y)).to(self._dtype)
        rows = choose_strip_rows(y.shape[3], y.shape[1] * y.element_size())
        spare = torch.empty_like(y)
        for begin in range(0, len(self._hidden), GROUP):
            _run_in_strips(y, spare, self._hidden[begin : begin + GROUP], max(rows, 4 * GROUP))
            y, spare = spare, y
        base = F.interpolate(x, scale_factor=self._scale, mode="nearest")
        residual = self._last(y).float().contiguous()
        return F.pixel_shuffle(residual, self._scale).add_(base)


def _run_in_strips(x: Tensor, result: Tensor, layers: list[FusedLayer], rows: int) -> None:
    """Compute several layers strip by strip, from `x` to `result`."""
    height = x.shape[2]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first = max(0, top - len(layers))
        y = x[:, :, first : min(height, bottom + len(layers))]
        for i, (conv, slope, prelu) in enumerate(layers):
            reach = len(layers) - 1 - i
            low, high = max(0, top - reach), min(height, bottom + reach)
            y, first = _convolve_rows(conv, y, (low - first, high - first), slope), low
            if prelu is not None:
                y = F.prelu(y, prelu)
        result[:, :, top:bottom] = y


def _read_slopes(layer: nn.Module, dtype: torch.dtype) -> tuple[float | None, Tensor | None]:
    """Return the slope to fuse into the convolution, or PReLU's slopes per channel."""
    if isinstance(layer, nn.PReLU):
        return None, layer.weight.detach().to(dtype)
    return (0.0 if isinstance(layer, nn.ReLU) else float(layer.negative_slope)), None  # type: ignore[arg-type]
