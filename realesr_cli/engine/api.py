"""`upscale(x)`: one call for any kind of image, which returns the same kind."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.sweep import Array
from realesr_cli.engine.upscaler import Upscaler, build_upscaler
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.image.formats import default_extension, format_of
from realesr_cli.image.read import from_array, from_pil, read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image
from realesr_cli.weights.load import open_model
from realesr_cli.weights.locate import locate

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

X = TypeVar("X", bytes, Image, Array, Tensor, "PillowImage")


@overload
def upscale(
    x: str | Path,
    *,
    scale: float | None = ...,
    model: str | Path | Upscaler = ...,
    denoise: float | None = ...,
    blend_model: str | Path | None = ...,
    blend: float | None = ...,
    settings: UpscaleSettings = ...,
    engine: EngineSettings = ...,
) -> Image: ...


@overload
def upscale(
    x: X,
    *,
    scale: float | None = ...,
    model: str | Path | Upscaler = ...,
    denoise: float | None = ...,
    blend_model: str | Path | None = ...,
    blend: float | None = ...,
    settings: UpscaleSettings = ...,
    engine: EngineSettings = ...,
) -> X: ...


def upscale(
    x: Any,
    *,
    scale: float | None = None,
    model: str | Path | Upscaler = "auto",
    denoise: float | None = None,
    blend_model: str | Path | None = None,
    blend: float | None = None,
    settings: UpscaleSettings = UpscaleSettings(),
    engine: EngineSettings = EngineSettings(),
) -> Any:
    """Enlarge and restore an image.

    `x` is a path (returns an `Image`, with `.save(path)`), encoded bytes (returns bytes of the same
    format), a PIL image, an `Image`, an array (H, W) or (H, W, 1..4) of uint8, uint16 or float in
    [0, 1], RGB order, or a dense tensor (H, W), (C, H, W) or (B, C, H, W) of uint8 or float; the
    result has the same kind, dtype, device and number of channels.

    `scale` is output over input size; default: the model's own, or a size in `settings`. `model` is
    a name, a file, the folder of a training run or an `Upscaler`, `denoise` 0..1 for the models
    that have it. `blend_model` is a second model of the same scale, and `blend` (0..1, default 0.5)
    its image's share in the result.

    The networks stay loaded for the next call with the same models. Do not fork a process after
    the first call: torch's threads do not survive it; use the "spawn" start method. Raises the
    classes of `realesr_cli.errors`.
    """
    if scale is not None:
        settings = dataclasses.replace(settings, scale=scale)
    if blend is not None:
        settings = dataclasses.replace(settings, blend=blend)
    if isinstance(model, Upscaler):
        if blend_model is not None:
            raise ConfigError(
                "blend_model needs the name of a model, got an Upscaler: pass the second network "
                "to the Upscaler instead, Upscaler(net, partner=other)"
            )
        upscaler = model
    else:
        upscaler = load(model, settings, denoise, engine, blend_model=blend_model)
    return _upscale_kind(x, upscaler, settings)


def _upscale_kind(x: Any, upscaler: Upscaler, settings: UpscaleSettings) -> Any:
    """Enlarge an image of any kind and return the kind that `upscale` promises for it."""
    if isinstance(x, (str, Path)):
        return upscaler(read_image(x), settings)
    if isinstance(x, Image):
        return upscaler(x, settings)
    if isinstance(x, (bytes, bytearray, memoryview)):
        image = read_image(bytes(x))
        # GIF, PPM and others are read only; their result comes in the format a file would get.
        return encode_image(upscaler(image, settings), format_of("x" + default_extension(image)))
    if isinstance(x, Tensor):
        return _upscale_tensor(x, upscaler, settings)
    if isinstance(x, np.ndarray):
        return _upscale_array(x, upscaler, settings)
    if hasattr(x, "getbands") and hasattr(x, "convert"):
        return upscaler(from_pil(x), settings).to_pil()
    raise UnsupportedImageError(
        f"cannot upscale a {type(x).__name__}: expected a path, bytes, PIL image, array or tensor"
    )


def load(
    model: str | Path,
    settings: UpscaleSettings = UpscaleSettings(),
    denoise: float | None = None,
    engine: EngineSettings = EngineSettings(),
    *,
    blend_model: str | Path | None = None,
) -> Upscaler:
    """Return the `Upscaler` of one model or two, kept until settings or files change."""
    keys = [_make_key(model, settings.scale, denoise)]
    if blend_model is not None:
        keys.append(_make_key(blend_model, settings.scale, None))
    return _load(tuple(keys), engine)


@dataclass(frozen=True)
class _ModelKey:
    """Everything that decides which network is opened."""

    model: str
    stamps: tuple[int, ...]
    scale: float | None
    denoise: float | None


def _make_key(model: str | Path, scale: float | None, denoise: float | None) -> _ModelKey:
    # The scale decides only which model "auto" is.
    factor = scale if str(model) == "auto" else None
    # A registered file never changes, and fetching it is no change either.
    parts = locate(str(model), scale=factor).parts
    stamps = tuple(p.path.stat().st_mtime_ns for p in parts if p.path and p.entry is None)
    return _ModelKey(str(model), stamps, factor, denoise)


@functools.lru_cache(maxsize=2)
def _load(keys: tuple[_ModelKey, ...], engine: EngineSettings) -> Upscaler:
    return build_upscaler(
        [open_model(key.model, scale=key.scale, denoise=key.denoise) for key in keys], engine
    )


def _upscale_array(x: Array, upscaler: Upscaler, settings: UpscaleSettings) -> Array:
    result = np.asarray(upscaler(from_array(x), settings))
    if x.ndim == 3 and result.ndim == 2:
        result = result[..., None]
    return result.astype(x.dtype, copy=False)


def _upscale_tensor(x: Tensor, upscaler: Upscaler, settings: UpscaleSettings) -> Tensor:
    _require_pixels(x)
    if x.ndim == 4:
        if len(x) == 0:
            raise ConfigError("an empty batch has nothing to upscale")
        return torch.stack([_upscale_tensor(image, upscaler, settings) for image in x])
    plain = x.detach().cpu().resolve_neg()
    # numpy has neither bf16 nor float8.
    array = (plain.float() if plain.is_floating_point() else plain).numpy()
    array = array if x.ndim == 2 else array.transpose(1, 2, 0)
    result = torch.from_numpy(np.ascontiguousarray(_upscale_array(array, upscaler, settings)))
    if x.ndim == 3:
        result = result.permute(2, 0, 1).contiguous()
    return result.to(device=x.device, dtype=x.dtype)


def _require_pixels(x: Tensor) -> None:
    """Raise UnsupportedImageError for a tensor that is not a dense array of numbers."""
    problem = None
    if x.is_meta:
        problem = "is on the meta device and has no values"
    elif x.layout != torch.strided or x.is_nested:
        problem = f"is sparse or nested ({x.layout}): expected a dense tensor"
    elif x.is_quantized or x.is_complex():
        problem = f"is {x.dtype}: expected uint8 or float"
    elif x.ndim not in (2, 3, 4):
        problem = f"has shape {tuple(x.shape)}: expected (H, W), (C, H, W) or (B, C, H, W)"
    if problem:
        raise UnsupportedImageError(f"cannot upscale a tensor that {problem}")
