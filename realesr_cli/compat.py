"""`RealESRGANer` with the reference's constructor and `enhance`: scripts change one import.

What differs from the reference: bit depth comes from the array's type and not from its values, a
factor other than the network's is reached by an antialiased resize before rounding, color is bled
under transparent pixels before the network sees them, and nothing of an image stays on the
object, so that one may serve many threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from torch import nn

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings, output_size
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.image.types import Image
from realesr_cli.nets.architecture import shapes_of
from realesr_cli.nets.detection import detect
from realesr_cli.weights.load import interpolate, open_model
from realesr_cli.weights.locate import require_same_architecture
from realesr_cli.weights.model_files import build_network

Array = NDArray[Any]


class RealESRGANer:
    """Upscales BGR arrays with a Real-ESRGAN model."""

    def __init__(
        self,
        scale: int,
        model_path: str | Path | Sequence[str | Path],
        dni_weight: Sequence[float] | None = None,
        model: nn.Module | None = None,
        tile: int = 0,
        tile_pad: int = 10,
        pre_pad: int = 10,
        half: bool = False,
        device: Any = None,
        gpu_id: int | None = None,
    ) -> None:
        """Load the weights and choose the device.

        `model_path` is a file, a name of the registry, or an address whose last part is such a
        name; with two of them `dni_weight` holds their shares. `model` may be given as for the
        reference and is only compared with the file, which tells the network by itself. `tile` and
        `tile_pad` are in input pixels (tile 0: the whole image), `pre_pad` mirrors the image's
        right and lower edge. `half` allows the fast number format of the device, else fp32.

        Raises ConfigError where the arguments contradict each other or the file, and what
        `open_model` raises.
        """
        self.scale = scale
        self.tile_size = tile
        self.tile_pad = tile_pad
        self.pre_pad = pre_pad
        self.half = half
        self.model = _network(model_path, dni_weight)
        _compare(self.model, scale, model)
        settings = EngineSettings(
            device=_device(device, gpu_id),
            precision="auto" if half else "fp32",
            tile=tile,
            overlap=tile_pad,
        )
        self._upscaler = Upscaler(self.model, settings)
        self.device = self._upscaler.policy.device

    def enhance(
        self, img: Array, outscale: float | None = None, alpha_upsampler: str = "realesrgan"
    ) -> tuple[Array, str]:
        """The enlarged image and its mode.

        `img` is uint8 or uint16: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGRA; the result is of
        the same type and kind, `outscale` (default: the network's factor) times as large. The mode
        is "L", "RGB" or "RGBA". `alpha_upsampler` "realesrgan" sends alpha through the network,
        anything else resamples it. Raises UnsupportedImage for other arrays.
        """
        image, mode = _image(img)
        settings = UpscaleSettings(
            scale=outscale, alpha="model" if alpha_upsampler == "realesrgan" else "resize"
        )
        height, width = output_size(settings, (image.height, image.width), self.scale)
        result = self._upscaler(_padded(image, self.pre_pad), settings)
        pixels = result.pixels[:height, :width]
        if mode == "L":
            return np.ascontiguousarray(pixels[..., 0]), mode
        if result.alpha is None:
            return np.ascontiguousarray(pixels[..., ::-1]), mode
        return np.dstack([pixels[..., ::-1], result.alpha[:height, :width]]), mode


def _network(
    model_path: str | Path | Sequence[str | Path], dni_weight: Sequence[float] | None
) -> nn.Module:
    if isinstance(model_path, (str, Path)):
        if dni_weight is not None:
            raise ConfigError("dni_weight mixes two models: give model_path as a list of two")
        return open_model(_name(model_path)).net
    if dni_weight is None or len(model_path) != 2 or len(dni_weight) != 2:
        raise ConfigError("a list as model_path needs two models, and dni_weight their two shares")
    share, other = (float(weight) for weight in dni_weight)
    if abs(share + other - 1) > 1e-6:
        raise ConfigError(f"dni_weight = {list(dni_weight)}: the two shares must add up to 1")
    first, second = (open_model(_name(path)) for path in model_path)
    require_same_architecture(first.architecture, second.architecture, (first.name, second.name))
    mixed = interpolate(second.net.state_dict(), first.net.state_dict(), share)
    return build_network(mixed, first.architecture)


def _name(model: str | Path) -> str | Path:
    """A file or name as it is; of an address the last part, which the registry knows."""
    text = str(model)
    if text.startswith(("https://", "http://")):
        return PurePosixPath(urlsplit(text).path).name
    return model


def _compare(net: nn.Module, scale: int, given: nn.Module | None) -> None:
    """ConfigError where the arguments speak of another network than the file holds."""
    architecture: Any = net.architecture
    if architecture.scale != scale:
        raise ConfigError(
            f"scale = {scale}, but the weights are of an x{architecture.scale} network; "
            "another output size is asked for with enhance(..., outscale=...)"
        )
    if given is None:
        return
    expected = detect(shapes_of(given.state_dict())).architecture
    if expected != architecture:
        raise ConfigError(
            f"model is {expected.describe()}, but the weights are of {architecture.describe()}; "
            "leave model away, the file says what it is"
        )


def _device(device: Any, gpu_id: int | None) -> str:
    if device is not None:
        return str(device)
    return "auto" if gpu_id is None else f"cuda:{gpu_id}"


def _image(array: Array) -> tuple[Image, str]:
    if array.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError(f"img is {array.dtype}: give uint8 or uint16")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return Image(array.reshape(*array.shape[:2], 1)), "L"
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise UnsupportedImageError(f"img has the shape {array.shape}: give (H, W), (H, W, 3 or 4)")
    pixels = np.ascontiguousarray(array[..., 2::-1])
    if array.shape[2] == 3:
        return Image(pixels), "RGB"
    return Image(pixels, np.ascontiguousarray(array[..., 3])), "RGBA"


def _padded(image: Image, pad: int) -> Image:
    """The image with its right and lower edge mirrored, as far as it is large enough."""
    down, right = (min(pad, side - 1) for side in (image.height, image.width))
    if not down and not right:
        return image
    pixels = np.pad(image.pixels, ((0, down), (0, right), (0, 0)), mode="reflect")
    if image.alpha is None:
        return Image(pixels)
    return Image(pixels, np.pad(image.alpha, ((0, down), (0, right)), mode="reflect"))
