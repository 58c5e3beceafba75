"""`upscale(x)`: one call for any kind of image, which gives back the same kind."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from realesr_cli.engine.blending import require_same_scale
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.tiled import Array
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.image.formats import default_extension, format_of
from realesr_cli.image.read import from_array, from_pil, read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image
from realesr_cli.weights.load import OpenedModel, open_model
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

    `x` is a path (an `Image` comes back, with `.save(path)`), encoded bytes (bytes of the same
    format), a PIL image, an `Image`, an array (H, W) or (H, W, 1..4) of uint8, uint16 or float in
    [0, 1], RGB order, or a tensor (H, W), (C, H, W) or (B, C, H, W) of uint8 or float; the result
    has the same kind, type and number of channels.

    `scale` is output over input size (the model's own if neither it nor a size in `settings` is
    given), `model` a name, a file, a training run's folder or an `Upscaler`, `denoise` 0..1 for
    the models that have it. `blend_model` is a second model of the same scale, of whose image the
    share `blend` (0..1; 0.5 if not given) is mixed in. The networks stay loaded for the next call
    with the same models. Raises the classes of `realesr_cli.errors`.
    """
    if scale is not None:
        settings = dataclasses.replace(settings, scale=scale)
    if blend is not None:
        settings = dataclasses.replace(settings, blend=blend)
    if isinstance(model, Upscaler):
        if blend_model is not None:
            raise ConfigError(
                "blend_model goes with a model's name; an Upscaler gets its second network when it "
                "is made: Upscaler(net, partner=other)"
            )
        upscaler = model
    else:
        upscaler = load(model, settings, denoise, engine, blend_model=blend_model)
    return _of_same_kind(x, upscaler, settings)


def _of_same_kind(x: Any, upscaler: Upscaler, settings: UpscaleSettings) -> Any:
    """An image of any kind enlarged, as the kind that `upscale` promises for it."""
    if isinstance(x, (str, Path)):
        return upscaler(read_image(x), settings)
    if isinstance(x, Image):
        return upscaler(x, settings)
    if isinstance(x, (bytes, bytearray, memoryview)):
        image = read_image(bytes(x))
        # GIF, PPM and others are read only; their result comes in the format a file would get.
        return encode_image(upscaler(image, settings), format_of("x" + default_extension(image)))
    if isinstance(x, Tensor):
        return _tensor(x, upscaler, settings)
    if isinstance(x, np.ndarray):
        return _array(x, upscaler, settings)
    if hasattr(x, "getbands") and hasattr(x, "convert"):
        return upscaler(from_pil(x), settings).to_pil()
    raise UnsupportedImageError(
        f"cannot upscale a {type(x).__name__}: give a path, bytes, PIL image, array or tensor"
    )


def load(
    model: str | Path,
    settings: UpscaleSettings = UpscaleSettings(),
    denoise: float | None = None,
    engine: EngineSettings = EngineSettings(),
    *,
    blend_model: str | Path | None = None,
) -> Upscaler:
    """The `Upscaler` for a model, or two, kept for the next call until settings or files change."""
    wanted = [_wanted(model, settings.scale, denoise)]
    if blend_model is not None:
        wanted.append(_wanted(blend_model, settings.scale, None))
    return _load(tuple(wanted), engine)


@dataclass(frozen=True)
class _Wanted:
    """All that decides which network is opened."""

    model: str
    stamps: tuple[int, ...]
    scale: float | None
    denoise: float | None


def _wanted(model: str | Path, scale: float | None, denoise: float | None) -> _Wanted:
    # Only what "auto" decides by may split the cache: the factor, where the model is not named.
    factor = scale if str(model) == "auto" else None
    # A registered file never changes; its fetching is no change either.
    parts = locate(str(model), scale=factor).parts
    stamps = tuple(p.path.stat().st_mtime_ns for p in parts if p.path and p.entry is None)
    return _Wanted(str(model), stamps, factor, denoise)


@functools.lru_cache(maxsize=2)
def _load(wanted: tuple[_Wanted, ...], engine: EngineSettings) -> Upscaler:
    return upscaler_of(
        [open_model(one.model, scale=one.scale, denoise=one.denoise) for one in wanted], engine
    )


def upscaler_of(
    models: Sequence[OpenedModel], engine: EngineSettings = EngineSettings()
) -> Upscaler:
    """The `Upscaler` of one model, or of two to be blended.

    Raises ConfigError, naming both, where their scales differ, and DeviceError.
    """
    if len(models) == 1:
        return Upscaler(models[0].net, engine)
    first, partner = models
    require_same_scale(
        (first.name, first.architecture.scale), (partner.name, partner.architecture.scale)
    )
    return Upscaler(first.net, engine, partner=partner.net)


def _array(x: Array, upscaler: Upscaler, settings: UpscaleSettings) -> Array:
    result = np.asarray(upscaler(from_array(x), settings))
    if x.ndim == 3 and result.ndim == 2:
        result = result[..., None]
    return result.astype(x.dtype, copy=False)


def _tensor(x: Tensor, upscaler: Upscaler, settings: UpscaleSettings) -> Tensor:
    if x.ndim == 4:
        if len(x) == 0:
            raise ConfigError("an empty batch has nothing to upscale")
        return torch.stack([_tensor(img, upscaler, settings) for img in x])
    if x.ndim not in (2, 3):
        raise UnsupportedImageError(f"a tensor of shape {tuple(x.shape)}: give HW, CHW or BCHW")
    plain = x.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    array = plain.numpy()
    array = array if x.ndim == 2 else array.transpose(1, 2, 0)
    result = torch.from_numpy(np.ascontiguousarray(_array(array, upscaler, settings)))
    if x.ndim == 3:
        result = result.permute(2, 0, 1).contiguous()
    return result.to(device=x.device, dtype=x.dtype)
