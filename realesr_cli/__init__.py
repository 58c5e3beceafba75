"""Enlarge and restore images with Real-ESRGAN and ESRGAN models, and train your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from realesr_cli._version import __version__

if TYPE_CHECKING:
    from realesr_cli.engine.api import upscale
    from realesr_cli.engine.upscaler import Upscaler
    from realesr_cli.errors import RealesrError
    from realesr_cli.image.read import read_image
    from realesr_cli.image.types import Image
    from realesr_cli.video.upscale_video import upscale_video
    from realesr_cli.weights.load import load_model, open_model

# Where each public name lives. It is imported when first asked for, so that `import realesr_cli`
# costs nothing and needs no torch.
_PUBLIC = {
    "Image": "realesr_cli.image.types",
    "RealesrError": "realesr_cli.errors",
    "Upscaler": "realesr_cli.engine.upscaler",
    "load_model": "realesr_cli.weights.load",
    "open_model": "realesr_cli.weights.load",
    "read_image": "realesr_cli.image.read",
    "upscale": "realesr_cli.engine.api",
    "upscale_video": "realesr_cli.video.upscale_video",
}

__all__ = [
    "Image",
    "RealesrError",
    "Upscaler",
    "__version__",
    "load_model",
    "open_model",
    "read_image",
    "upscale",
    "upscale_video",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
