"""LPIPS, a learned distance from a reference image: 0 for equal ones, lower is better.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
through their own package `lpips` (weights version 0.1), which the extra of that name installs. The
ImageNet networks beneath it are torchvision's, fetched once into the folder of torch.hub.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from realesr_cli.errors import (
    ChecksumMismatchError,
    ConfigError,
    MissingDependencyError,
    ModelUnavailableError,
)
from realesr_cli.metrics.reference import PEAK, eight_bits

Backbone = Literal["alex", "vgg", "squeeze"]

_ADDRESS = "https://download.pytorch.org/models/"
_FILES: dict[str, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's files; the last part of a name is the beginning of the file's SHA-256."""

SMALLEST = 64
"""Side of the images it was calibrated on; below it the deepest layers see nothing."""


class Lpips:
    """The distance, its networks loaded once. Calls are independent of each other."""

    def __init__(self, net: Backbone = "alex", *, offline: bool = False) -> None:
        """`net` is what papers report (alex), or vgg or squeeze; on the CPU.

        Raises MissingDependency without the package `lpips`, ModelUnavailable where the weights
        beneath it cannot be fetched (`offline`: may not be), ChecksumMismatch where the file is
        not torchvision's, ConfigError for another `net`.
        """
        if net not in get_args(Backbone):
            raise ConfigError(f"lpips net {net!r}: must be one of {', '.join(get_args(Backbone))}")
        package = _package()
        _ensure(net, offline)
        with warnings.catch_warnings():
            # It calls torchvision in an old way that still works.
            warnings.simplefilter("ignore")
            self._distance = package.LPIPS(net=net, version="0.1", verbose=False).eval()

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor, *, crop: int = 0) -> float:
        """Distance of two images of equal shape, about 0 to 1.

        a, b: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1], brought to 8 bits first; `crop`
        pixels are left out on each side. ValueError when shapes differ or fewer than 64x64 pixels
        are left.
        """
        if a.shape != b.shape:
            raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
        height, width = (length - 2 * crop for length in a.shape[-2:])
        if crop < 0 or min(height, width) < SMALLEST:
            raise ValueError(
                f"LPIPS needs {SMALLEST}x{SMALLEST} pixels, the crop leaves {height}x{width}"
            )
        pair = [_signed(image, crop) for image in (a, b)]
        return float(self._distance(*pair))


def _signed(image: Tensor, crop: int) -> Tensor:
    """(1, 3, H, W) float32 in [-1, 1] of 8-bit values."""
    image = eight_bits(image.squeeze(0) if image.ndim == 4 else image)
    image = image[:, crop : image.shape[1] - crop, crop : image.shape[2] - crop]
    return (image / PEAK * 2 - 1).expand(3, -1, -1).unsqueeze(0).float()


def _package() -> ModuleType:
    try:
        import lpips
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # torchvision raises RuntimeError where it was built for another torch.
        missing = isinstance(error, ModuleNotFoundError)
        why = "is not installed" if missing else f"cannot be loaded ({error})"
        hint = "" if missing else ", with the torchvision that belongs to the installed torch"
        raise MissingDependencyError(
            f"the LPIPS package {why}: pip install 'realesr-cli[lpips]'{hint}"
        ) from error
    return cast(ModuleType, lpips)


def _ensure(net: str, offline: bool) -> None:
    """The network's file in the folder of torch.hub, fetched if it is not there, and checked."""
    name = _FILES[net]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    prefix = name.removesuffix(".pth").rpartition("-")[2]
    if not path.is_file():
        hint = f"put {name} from {_ADDRESS}{name} into {folder}"
        if offline:
            raise ModelUnavailableError(
                f"LPIPS needs {name}, which is not there, and the network is not used: {hint}"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                _ADDRESS + name, str(path), hash_prefix=prefix, progress=False
            )
        except (OSError, RuntimeError) as error:
            raise ModelUnavailableError(
                f"LPIPS needs {name}, which cannot be fetched ({error}): {hint}"
            ) from error
    found = _sha256(path)
    if not found.startswith(prefix):
        raise ChecksumMismatchError(
            f"{path} is not the file of that name (SHA-256 {found[:8]}..., not {prefix}...): "
            "remove it, and it will be fetched again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
