"""`RealESRGANer`: the reference's class for BGR arrays, on our engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from realesr_cli.compat.reference import as_generator, load_network
from realesr_cli.engine.policy import choose, machine_info
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, RealesrError, UnsupportedImageError
from realesr_cli.image.pixels import bleed
from realesr_cli.image.types import Image
from realesr_cli.ops.color import luma
from realesr_cli.ops.quantize import full_scale, quantize
from realesr_cli.ops.resize import resize

Array = NDArray[Any]
M = TypeVar("M", bound=Callable[..., Any])

_STEPS = ("pre_process", "process", "tile_process", "post_process")


def _raise_runtime_errors(method: M) -> M:
    """Make every error of ours a RuntimeError too: scripts of the reference catch only that."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except RealesrError as error:
            if isinstance(error, RuntimeError):
                raise
            raised = _runtime_error_class(type(error))(*error.args)
            raised.__dict__.update(error.__dict__)
            raise raised from error

    return wrapped  # type: ignore[return-value]


_RUNTIME_ERRORS: dict[type[RealesrError], type[RealesrError]] = {}


def _runtime_error_class(kind: type[RealesrError]) -> type[RealesrError]:
    if kind not in _RUNTIME_ERRORS:
        members = {"__doc__": kind.__doc__}
        _RUNTIME_ERRORS[kind] = type(kind.__name__, (kind, RuntimeError), members)
    return _RUNTIME_ERRORS[kind]


class RealESRGANer:
    """Upscales BGR arrays with a Real-ESRGAN model.

    All that `enhance` needs are the attributes below, whenever they were set, so that subclasses
    need not call `__init__`, and later changes take effect.
    """

    scale: int = 4
    model: Any = None
    """The network: a module, or any function from (1, 3, H, W) to (1, 3, H * scale, W * scale)."""
    device: Any = torch.device("cpu")
    half: bool = False
    """Whether the device's fast precision may be used, else fp32."""
    tile_size: int = 0
    """Input pixels; 0 or less: the whole image."""
    tile_pad: int = 10
    pre_pad: int = 10
    """Input pixels by which the right and lower edge are mirrored."""
    mod_scale: int | None = None
    mod_pad_h: int = 0
    mod_pad_w: int = 0
    img: Tensor
    output: Tensor
    _opened: tuple[Any, Any, Upscaler] | None = None

    @_raise_runtime_errors
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

        `model_path` is a file, a name of the registry or an address; of a list of two the tensors
        are summed, weighted by `dni_weight`. `model` need not be given, since the file says what it
        is; if it is, it must be the same network. `gpu_id` without a GPU means the CPU.

        Raises ConfigError where the arguments contradict each other or the file, and what
        `open_model` and `Upscaler` raise; each is a RuntimeError as well.
        """
        self.scale, self.half = scale, half
        self.tile_size, self.tile_pad, self.pre_pad = tile, tile_pad, pre_pad
        self.device = _choose_device(device, gpu_id)
        network = load_network(model_path, dni_weight, model)
        if network.scale != scale:
            raise ConfigError(
                f"scale = {scale}, but the weights are of an x{network.scale} network; pass "
                "outscale to enhance for another output size"
            )
        choose(machine_info(), EngineSettings(str(self.device)), network.architecture)
        self.model = network.to(self.device)
        self._upscaler(self.tile_size)

    @property
    def tile(self) -> int:
        """The name by which the constructor knows `tile_size`."""
        return self.tile_size

    @tile.setter
    def tile(self, value: int) -> None:
        self.tile_size = value

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is opened anew when needed, so that copies and pickles work."""
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    @_raise_runtime_errors
    def enhance(
        self, img: Array, outscale: float | None = None, alpha_upsampler: str = "realesrgan"
    ) -> tuple[Array, str]:
        """Return the enlarged image and its mode: "L", "RGB" or "RGBA".

        `img` is (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGRA. uint8 and uint16 keep their dtype;
        any other is taken for 0..255 and gives uint8, or for 0..65535 and uint16 if a value exceeds
        256. The result has int(H * outscale) rows and int(W * outscale) columns; default: the
        network's factor. `alpha_upsampler` "realesrgan" sends alpha through the network, anything
        else resizes it. Steps that a subclass overrides are used.
        """
        image, mode, dtype = _read_array(img)
        height, width = image.height, image.width
        factor = self.scale if outscale is None else outscale
        size = max(1, int(height * factor)), max(1, int(width * factor))
        resized = size != (height * self.scale, width * self.scale)
        by_steps = any(
            name in vars(self) or getattr(type(self), name) is not getattr(RealESRGANer, name)
            for name in _STEPS
        )
        if resized or by_steps:
            image = _to_float(image)
        by_model = alpha_upsampler == "realesrgan"
        if by_steps:
            result = self._enhance_by_steps(image, by_model)
        else:
            result = self._upscaler(self.tile_size)(
                _extend_image(image, self.pre_pad),
                UpscaleSettings(alpha="model" if by_model else "resize"),
            )
        planes = result.pixels[: height * self.scale, : width * self.scale, ::-1]
        if result.alpha is not None:
            kept = result.alpha[: height * self.scale, : width * self.scale]
            planes = np.dstack([planes, kept])
        if planes.dtype != dtype:
            tensor = torch.from_numpy(planes.transpose(2, 0, 1).copy())
            planes = quantize(resize(tensor[None], size, "matlab")[0], dtype)
        return np.ascontiguousarray(planes[..., 0] if mode == "L" else planes), mode

    def _enhance_by_steps(self, image: Image, alpha_by_model: bool) -> Image:
        """Enlarge a float image through the four steps, as the reference's `enhance` does."""

        def run(pixels: Array) -> Array:
            self.pre_process(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels)
            self.tile_process() if self.tile_size > 0 else self.process()
            output = self.post_process().float().clamp(0, 1).cpu()
            output = luma(output) if pixels.shape[2] == 1 else output
            return output[0].permute(1, 2, 0).numpy()

        if image.alpha is None:
            return Image(run(image.pixels))
        enlarged = run(bleed(image.pixels, image.alpha))
        if alpha_by_model:
            return Image(enlarged, run(image.alpha[..., None])[..., 0])
        plane = torch.from_numpy(image.alpha)[None, None]
        shape = (enlarged.shape[0], enlarged.shape[1])
        return Image(enlarged, resize(plane, shape, "matlab")[0, 0].clamp(0, 1).numpy())

    @_raise_runtime_errors
    def pre_process(self, img: Array) -> None:
        """Set `self.img`, (1, 3, H, W), from (H, W, 3) RGB float in [0, 1]: both pads added."""
        pixels = _extend(np.asarray(img, np.float32), self.pre_pad, self.pre_pad)
        self.mod_scale = {2: 2, 1: 4}.get(self.scale)
        multiple = self.mod_scale or 1
        self.mod_pad_h, self.mod_pad_w = -pixels.shape[0] % multiple, -pixels.shape[1] % multiple
        pixels = _extend(pixels, self.mod_pad_h, self.mod_pad_w).transpose(2, 0, 1)
        self.img = torch.from_numpy(np.ascontiguousarray(pixels))[None].to(self.device)

    @_raise_runtime_errors
    def process(self) -> None:
        """Set `self.output`, clamped to [0, 1], from `self.img` as a whole."""
        self.output = self._run(0)

    @_raise_runtime_errors
    def tile_process(self) -> None:
        """Set `self.output`, clamped to [0, 1], from `self.img` tile by tile."""
        self.output = self._run(self.tile_size)

    def _run(self, tile: int) -> Tensor:
        image = Image(self.img[0].permute(1, 2, 0).float().cpu().numpy())
        result = self._upscaler(tile)(image).pixels
        return torch.from_numpy(result).permute(2, 0, 1)[None].to(self.device)

    def post_process(self) -> Tensor:
        """Cut the pads off `self.output`, and return it."""
        bottom = (self.mod_pad_h + self.pre_pad) * self.scale
        right = (self.mod_pad_w + self.pre_pad) * self.scale
        height, width = self.output.shape[-2:]
        self.output = self.output[..., : height - bottom, : width - right]
        return self.output

    def _upscaler(self, tile: int) -> Upscaler:
        """Return the `Upscaler` for the attributes of now, kept until one of them changes."""
        model = self.model
        tensors = model.state_dict(keep_vars=True).values() if isinstance(model, nn.Module) else ()
        # In-place changes of weights raise a tensor's version; new tensors have other addresses.
        weights = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        key = (weights, str(self.device), bool(self.half), max(0, tile), max(0, self.tile_pad))
        opened = self._opened
        if opened is None or opened[0] is not model or opened[1] != key:
            engine = EngineSettings(
                device=str(self.device),
                precision="auto" if self.half else "fp32",
                tile=max(0, tile),
                overlap=max(0, self.tile_pad),
            )
            opened = (model, key, Upscaler(as_generator(model, self.scale), engine))
            self._opened = opened
        return opened[2]


def _choose_device(device: Any, gpu_id: int | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    gpus = [gpu.device for gpu in machine_info().gpus]
    if gpu_id is not None:
        return torch.device(f"cuda:{gpu_id}" if torch.cuda.is_available() else "cpu")
    return torch.device(gpus[0] if gpus else "cpu")


def _read_array(img: Any) -> tuple[Image, str, np.dtype[Any]]:
    """Return an array as an image, the reference's name of its mode, and the result's dtype."""
    array = np.asarray(img)
    if array.dtype.kind not in "buif":
        raise UnsupportedImageError(f"img is {type(img).__name__}: expected an array of numbers")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UnsupportedImageError(
            f"img has shape {array.shape}: expected (H, W), (H, W, 3) or (H, W, 4)"
        )
    dtype = array.dtype
    if dtype not in (np.uint8, np.uint16):
        dtype = np.dtype(np.uint16 if array.max() > 256 else np.uint8)
        array = (array.astype(np.float32) / np.float32(full_scale(dtype))).clip(0, 1)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    pixels = array if mode == "L" else array[..., 2::-1]
    alpha = np.ascontiguousarray(array[..., 3]) if mode == "RGBA" else None
    return Image(np.ascontiguousarray(pixels), alpha), mode, dtype


def _to_float(image: Image) -> Image:
    def convert(array: Array) -> Array:
        return array.astype(np.float32) / np.float32(full_scale(array.dtype))

    return Image(convert(image.pixels), None if image.alpha is None else convert(image.alpha))


def _extend(array: Array, bottom: int, right: int) -> Array:
    """Mirror the lower and right edge of (H, W) or (H, W, C), again and again if need be."""
    if bottom <= 0 and right <= 0:
        return array
    pads = ((0, max(0, bottom)), (0, max(0, right)), (0, 0))[: array.ndim]
    return np.pad(array, pads, mode="reflect")


def _extend_image(image: Image, pad: int) -> Image:
    alpha = None if image.alpha is None else _extend(image.alpha, pad, pad)
    return Image(_extend(image.pixels, pad, pad), alpha)
